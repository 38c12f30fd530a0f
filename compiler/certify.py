"""Proof of every weight block of a chip, on the Verilog as it lies on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.ir import program as ir
from hwcompile.sim.certificate.proof import BlockProof, BlockShape, prove_block

_BLOCK = re.compile(r"hw_matrix_(\d+)")
_OURS = re.compile(r"hw_(?:matrix_\d+|core\w*|top|ram_\w+)")
_CLAIM = re.compile(
    r"// y = W x: (\d+) inputs, (\d+) outputs, (\d+) phases; x of (\d+) bits, (\d+) a cycle\."
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


def _claimed(path: Path, op: ir.Linear, x_bits: int) -> BlockShape:
    """How the block says it is driven; the proof holds it to that."""
    with path.open(encoding="utf-8", errors="replace") as text:
        found = _CLAIM.match(text.readline())
    inputs, outputs = op.weight.shape
    if found is None:
        raise MismatchError(f"rtl/{path.name} does not begin with the shape of its block")
    claimed = [int(number) for number in found.groups()]
    if claimed[:2] != [inputs, outputs] or claimed[3] != x_bits:
        raise MismatchError(
            f"rtl/{path.name} is a block of another shape than its matrix: {found[0]}"
        )
    phases, planes = claimed[2], claimed[4]
    if phases < 1 or not 1 <= planes <= x_bits:
        raise MismatchError(f"rtl/{path.name} claims what no block can be: {found[0]}")
    return BlockShape(x_bits, phases, planes)

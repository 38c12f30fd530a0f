"""The verifier finds each kind of broken program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.verify import InvalidProgram, verify_program
from tests import programs

DECODER = programs.tiny_decoder()


def index_of(kind: type[ir.Operation]) -> int:
    return next(i for i, op in enumerate(DECODER.operations) if isinstance(op, kind))


def with_operation(i: int, op: ir.Operation) -> ir.Program:
    operations = list(DECODER.operations)
    operations[i] = op
    return replace(DECODER, operations=tuple(operations))


def changed(kind: type[ir.Operation], **parts: Any) -> ir.Program:
    i = index_of(kind)
    return with_operation(i, replace(DECODER.operations[i], **parts))


def value(kind: type[ir.Operation], **parts: Any) -> ir.Program:
    output = DECODER.operations[index_of(kind)].output
    return changed(kind, output=replace(output, **parts))


def linear() -> Any:
    return DECODER.operations[index_of(ir.Linear)]


BROKEN: dict[str, tuple[Callable[[], ir.Program], str]] = {
    "interval too small": (lambda: value(ir.Linear, high=5), "outside the interval"),
    "interval too wide": (lambda: value(ir.Linear, high=1 << 20), "outside 10 bits"),
    "no scale": (lambda: value(ir.Linear, scale=0.0), "scale"),
    "weight shape": (lambda: changed(ir.Linear, weight=linear().weight[1:]), "weight"),
    "bias shape": (lambda: changed(ir.Linear, bias=linear().bias[1:]), "bias"),
    "multiplier": (lambda: changed(ir.Linear, multiplier=linear().multiplier * 0), "below 1"),
    "wrap": (lambda: changed(ir.Linear, multiplier=linear().multiplier << 50), "may reach"),
    "read before made": (lambda: changed(ir.Linear, inputs=("v19",)), "before it is made"),
    "made twice": (lambda: value(ir.Linear, key="v0"), "made twice"),
    "section": (lambda: changed(ir.Linear, section=1), "section"),
    "table domain": (lambda: changed(ir.Lookup, first=0), "table domain"),
    "table overflow": (lambda: value(ir.Lookup, bits=5, low=-15, high=15), "does not fit"),
    "rotation tables": (lambda: changed(ir.Rotate, cosine=np.ones((2, 2), int)), "cosine"),
    "partner": (lambda: changed(ir.Rotate, partner=np.full(8, 9)), "partner"),
    "heads": (lambda: changed(ir.Attend, kv_heads=3), "heads"),
    "later rows": (lambda: changed(ir.Attend, causal=False), "later rows"),
    "exp table": (lambda: changed(ir.Attend, exp_table=np.array([1, 2])), "table of exp"),
    "epsilon": (lambda: changed(ir.Normalise, epsilon=-1), "epsilon"),
    "no output": (
        lambda: replace(DECODER, outputs=(replace(DECODER.outputs[0], value="v99"),)),
        "not made",
    ),
    "cache": (
        lambda: replace(DECODER, caches=(ir.CacheTensor("v1", "key", "a", "b"),)),
        "no attention",
    ),
    "ids": (
        lambda: replace(DECODER, inputs=(replace(DECODER.inputs[0], id_count=99),)),
        "lies in",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_programs_are_named(name: str) -> None:
    make, message = BROKEN[name]
    with pytest.raises(InvalidProgram, match=message):
        verify_program(make())


def test_a_gather_across_rows_of_a_sequence_is_refused() -> None:
    x = DECODER.operations[0].output
    index = np.arange(x.rows * x.cols).reshape(x.rows, x.cols)
    made = replace(x, key="g")
    forward = ir.Gather(made, (x.key,), 0, "", index)
    verify_program(replace(DECODER, operations=(*DECODER.operations, forward)))
    backward = replace(forward, index=np.ascontiguousarray(index[::-1]))
    with pytest.raises(InvalidProgram, match="across the rows"):
        verify_program(replace(DECODER, operations=(*DECODER.operations, backward)))


@pytest.mark.parametrize("seed", range(4))
def test_sound_programs_pass(seed: int) -> None:
    verify_program(programs.tiny_decoder(seed))
    verify_program(programs.tiny_decoder(seed, "layer", rope=False, swiglu=False))
    verify_program(programs.tiny_encoder(seed))
    verify_program(programs.tiny_encoder(seed, tokens=False))
    verify_program(programs.tiny_encoder_decoder(seed))

"""From a TensorGraph to a Graph: every tensor becomes a Form over row matrices.

The graph is executed symbolically, node by node. What only moves elements costs nothing; what
computes becomes an operation on whole matrices; attention is followed as :class:`Scores` from its
first product to its last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from hwcompile.compiler.errors import ModelError, Problem
from hwcompile.compiler.frontend import forms, padding
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.lower_elementwise import ELEMENTWISE
from hwcompile.compiler.frontend.lower_masks import MASKS
from hwcompile.compiler.frontend.lower_products import PRODUCTS
from hwcompile.compiler.frontend.lower_recurrent import RECURRENT
from hwcompile.compiler.frontend.lower_reductions import REDUCTIONS
from hwcompile.compiler.frontend.lower_structure import STRUCTURE
from hwcompile.compiler.frontend.lowering import Handlers, Lowering, Tensor
from hwcompile.compiler.frontend.refusal import escape, refuse_nodes
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir import tensor_operations
from hwcompile.compiler.ir.expressions import VARIABLE
from hwcompile.compiler.ir.graph import Expression
from hwcompile.compiler.ir.tensor_graph import Node, TensorGraph, TensorInput

HANDLERS: Handlers = {**ELEMENTWISE, **MASKS, **PRODUCTS, **RECURRENT, **REDUCTIONS, **STRUCTURE}


@dataclass(frozen=True, slots=True)
class Lowered:
    """Operations (one section yet), inputs, outputs and the Attend each key tensor went into."""

    values: Mapping[str, ir.Value]
    inputs: tuple[ir.Input, ...]
    operations: tuple[ir.Operation, ...]
    outputs: tuple[ir.Output, ...]
    attends: tuple[tuple[str, str, str], ...]
    lines: tuple[str, ...]


def lower(graph: TensorGraph) -> Lowered:
    """The operations of a TensorGraph. Raises ModelError with every node that has no row form."""
    w, ids = Lowering(graph), _id_inputs(graph)
    for given in graph.inputs:
        _enter(w, given, given.key in ids)
    problems: list[Problem] = []
    lost: set[str] = set()
    last = _last_readers(graph)
    for node in graph.nodes:
        if any(k in lost for k in node.inputs):
            lost.add(node.output)
            continue
        w.m.origin = node.origin
        try:
            w.tensors[node.output] = _node(w, node)
        except Unsupported as error:
            place = node.origin.strip("/").rpartition("/")[0]
            problems.append(Problem(node.op, node.origin, place, error.why, error.hint))
            lost.add(node.output)
        except (ValueError, IndexError):
            why = "operands do not fit what it is part of"
            problems.append(Problem(node.op, node.origin, "", why, "check the model"))
            lost.add(node.output)
        for key in last.get(node.output, ()):
            w.tensors.pop(key, None)
    if problems:
        raise refuse_nodes(problems, "cannot be built in hardware")
    outputs = tuple(_output(w, o.key, o.model_name, o.model_shape) for o in graph.outputs)
    padding.check(w)
    return Lowered(
        w.m.values,
        tuple(w.inputs.values()),
        tuple(w.m.operations),
        outputs,
        tuple(w.attends),
        tuple(_describe(op) for op in w.m.operations if isinstance(op, ir.Attend)),
    )


def _last_readers(graph: TensorGraph) -> dict[str, list[str]]:
    """For a node's output, what no later node and no output reads: its index arrays can go."""
    reader = {k: node.output for node in graph.nodes for k in node.inputs}
    kept = {o.key for o in graph.outputs}
    last: dict[str, list[str]] = {}
    for key, output in reader.items():
        if key not in kept:
            last.setdefault(output, []).append(key)
    return last


def _enter(w: Lowering, given: TensorInput, is_id: bool) -> None:
    lead = w.graph.steps if given.timed else 1
    count = prod(given.shape) * lead
    # An integer that is no token and has no row axis is a number (a time), not a mask.
    floats = given.dtype.kind == "f" or len(given.shape) < 2
    cols = given.shape[-1] if floats and given.shape else 1
    value = w.m.value(count // cols, cols)
    index = np.arange(count).reshape(lead, *given.shape)
    w.tensors[given.key] = forms.bare(value.key, index)
    kind: ir.InputKind = "ids" if is_id else "tensor" if floats else "flags"
    if kind == "flags":
        w.flags.add(value.key)
    w.inputs[value.key] = ir.Input(value, kind, 0, given.model_name, given.model_shape)


def _output(w: Lowering, key: str, name: str, shape: tuple[int, ...]) -> ir.Output:
    w.m.origin = "output"
    try:
        form = w.form(key)
        rows, cols = forms.rows_of(form)
        made = w.m.matrix(form, np.arange(rows * cols), rows, cols)
    except Unsupported as error:
        raise ModelError(f"output {escape(name)}: {error.why}", error.hint) from error
    if made in w.inputs:
        raise ModelError("an output is an input passed through", "leave it out")
    return ir.Output(made, "tensor", name, shape)


def _node(w: Lowering, node: Node) -> Tensor:
    if node.op in HANDLERS:
        return HANDLERS[node.op](w, node)
    if node.op in tensor_operations.ELEMENTWISE and len(node.inputs) == 1:
        name = tensor_operations.ELEMENTWISE[node.op][1]
        return w.function(node.inputs[0], Expression(name, (VARIABLE,)))
    raise Unsupported("it has no row form here", "see `hwcompile ops`")


def _describe(op: ir.Attend) -> str:
    """What an attention was found to be, for the report."""
    shared = "" if op.kv_heads == op.heads else f" on {op.kv_heads}"
    seen = "earlier rows" if op.causal else "all rows"
    flags = ", padding left out" if len(op.inputs) > 3 else ""
    return f"{op.origin}: attention of {op.heads} heads{shared} over {seen}{_bias(op)}{flags}"


def _bias(op: ir.Attend) -> str:
    hidden, shown = op.bias == ir.HIDDEN, op.bias != ir.HIDDEN
    text = ", some of them hidden" if hidden.any() else ""
    return text + (", with a bias" if (shown & (op.bias != 0)).any() else "")


def _id_inputs(graph: TensorGraph) -> frozenset[str]:
    """Inputs that index a table, directly or through what only moves elements."""
    makers = {n.output: n for n in graph.nodes}
    found = set()
    for node in graph.nodes:
        if node.op == "Gather":
            key = node.inputs[1]
            while key in makers and (
                makers[key].op in tensor_operations.STRUCTURAL or makers[key].op == "Cast"
            ):
                key = makers[key].inputs[0]
            found.add(key)
    return frozenset(found)

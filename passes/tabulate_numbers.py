"""Tabulate numbers: what depends on one integer input alone is a table over its values.

1. An input that is one integer per sample and is used in arithmetic (the time of a diffusion
   model) is taken to lie in ``0 .. NUMBERS - 1``, or to the end of a table it indexes.
2. Everything computed from it and constants alone is evaluated for each of these values; each
   tensor of it that other nodes read becomes one row of a table, picked by the input.

An input that only picks rows of tables (a class) stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from hwcompile.compiler.ir import tensor_operations
from hwcompile.compiler.ir.tensor_graph import Array, Constant, Node, TensorGraph, TensorInput
from hwcompile.compiler.ir.tensor_operations import STRUCTURAL
from hwcompile.passes.result import PassResult, rebuild

NUMBERS = 1024
_MOST_ELEMENTS = 1 << 26


def run(graph: TensorGraph) -> PassResult[TensorGraph]:
    """The graph with tables in place of arithmetic on integer inputs."""
    lines: list[str] = []
    for given in graph.inputs:
        if _is_number(graph, given):
            graph, count = _tabulate(graph, given)
            if count:
                lines.append(f"input {given.model_name!a}: a table over 0..{count - 1}")
    return PassResult(graph, bool(lines), tuple(lines))


def _is_number(graph: TensorGraph, given: TensorInput) -> bool:
    if given.dtype.kind not in "iu" or prod(given.shape) != 1 or given.timed:
        return False
    moved = {given.key}
    for node in graph.nodes:
        read = [k for k in node.inputs if k in moved]
        if read and (node.op in STRUCTURAL or node.op == "Cast"):
            moved.add(node.output)
        elif read and not (node.op == "Gather" and node.inputs[0] not in moved):
            return True
    return False


def _tabulate(graph: TensorGraph, given: TensorInput) -> tuple[TensorGraph, int]:
    """The graph and the length of the tables; 0 where nothing was done."""
    inside = {given.key}
    region: list[Node] = []
    for node in graph.nodes:
        constant = all(k in inside or _is_plain(graph, k) for k in node.inputs)
        if constant and any(k in inside for k in node.inputs):
            inside.add(node.output)
            region.append(node)
    read = {k for node in graph.nodes if node.output not in inside for k in node.inputs}
    read |= {output.key for output in graph.outputs}
    kept = [node for node in region if node.output in read]
    if sum(prod(node.shape) for node in region) * NUMBERS > _MOST_ELEMENTS:
        return graph, 0
    rows: list[dict[str, Array]] = []
    for number in range(NUMBERS):
        try:
            rows.append(_evaluate(graph, region, given, number))
        except IndexError:  # a table that it indexes ends here
            break
    if not rows:
        return graph, 0
    nodes: list[Node] = []
    constants = dict(graph.constants)
    for node in graph.nodes:
        if node in kept:
            key = f"{node.output}_table"
            table = np.stack([values[node.output].ravel() for values in rows])
            constants[key] = Constant(table)
            nodes += _pick(node, key, given, table.shape[1])
        else:
            nodes.append(node)
    return rebuild(replace(graph, constants=constants), tuple(nodes), {}), len(rows)


def _is_plain(graph: TensorGraph, key: str) -> bool:
    return key in graph.constants and not graph.constants[key].timed


def _evaluate(
    graph: TensorGraph, region: list[Node], given: TensorInput, number: int
) -> dict[str, Array]:
    values: dict[str, Array] = {given.key: np.full(given.shape, number, given.dtype)}
    with np.errstate(all="ignore"):
        for node in region:
            arrays = [values[k] if k in values else graph.constants[k].array for k in node.inputs]
            values[node.output] = tensor_operations.evaluate(node.op, node.attributes, arrays)
    return values


def _pick(node: Node, table: str, given: TensorInput, width: int) -> list[Node]:
    """``node`` as a row of its table, in its own shape."""
    row = f"{node.output}_row"
    shape = (*given.shape, width)
    gather = replace(
        node, op="Gather", inputs=(table, given.key), output=row, shape=shape,
        attributes={"axis": 0},
    )  # fmt: skip
    attributes = {"shape": node.shape}
    return [gather, replace(node, op="Reshape", inputs=(row,), attributes=attributes)]

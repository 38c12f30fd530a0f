"""In which integer forms each value of a Graph is needed, and the grid of each form.

Forms, by what reads the value:

* ``wide``: additions and norms (the residual stream). Values joined by additions share one grid.
* ``narrow``: matrices, products and means, at the activation width.
* ``score``: query and key of attention. ``rotary``: the same before rotation, a little wider.
* ``table``: the input of a function table.
* ``output``: what leaves the chip. ``flags``: 0 or 1, no grid.

Gathers and delays move integers, so their inputs share the grid of their output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

import numpy as np

from hwcompile.compiler.ir import expressions, graph
from hwcompile.compiler.ir.operations import limit
from hwcompile.passes import grids
from hwcompile.passes.grids import FloatArray, Grid

Form = Literal["wide", "narrow", "score", "rotary", "table", "output", "flags"]
Node = tuple[str, Form]

_FACTOR_GUARD = 2

_INPUT_FORMS: Mapping[type[graph.Operation], tuple[Form, ...]] = {
    graph.Linear: ("narrow",),
    graph.Unary: ("table",),
    graph.Add: ("wide", "wide"),
    graph.Multiply: ("narrow", "narrow"),
    graph.Normalise: ("wide",),
    graph.Rotate: ("rotary",),
    graph.Attend: ("score", "score", "narrow", "flags"),
    graph.MeanRows: ("narrow", "flags"),
}


@dataclass(frozen=True, slots=True)
class Widths:
    """Bits of each form."""

    narrow: int = 8
    wide: int = 16
    score: int = 8
    rotary: int = 11
    table: int = 8
    output: int = 16


@dataclass(frozen=True, slots=True)
class Needs:
    """Result: the forms of every live value, first the widest, and a grid for each.

    ``shared``: forms whose grid other values share and which therefore must not move.
    ``by_column``: values read by free matrices only, whose narrow grid may differ by column.
    ``offset``: values whose narrow or table grid may have an offset.
    """

    forms: Mapping[str, tuple[Form, ...]]
    grids: Mapping[Node, Grid]
    shared: frozenset[Node]
    by_column: frozenset[str]


def input_forms(op: graph.Operation, wide: frozenset[str]) -> tuple[Form, ...]:
    """The form of each input; ``wide``: see :func:`wide_factors`."""
    forms = _INPUT_FORMS.get(type(op), ())
    if isinstance(op, graph.Multiply):
        return tuple("wide" if key in wide else "narrow" for key in op.inputs)
    return forms


def wide_factors(net: graph.Graph) -> frozenset[str]:
    """Values that a product takes wide: states, which are summed over time, and constants that a
    factor of 0 or 1 switches.
    """
    made = {op.output.key: op for op in net.operations}
    wide = {op.output.key for op in net.operations if isinstance(op, graph.Delay)}
    for op in net.operations:
        if isinstance(op, graph.Multiply):
            for a, b in (op.inputs, op.inputs[::-1]):
                switch = made.get(a)
                if isinstance(switch, graph.Embed) and np.isin(switch.table, (0.0, 1.0)).all():
                    wide.update(k for k in (b,) if isinstance(made.get(k), graph.Rows))
    return frozenset(wide)


def find(net: graph.Graph, samples: Mapping[str, FloatArray], widths: Widths) -> Needs:
    """Forms and grids of all values of a graph, from calibration samples ``[n, cols]`` by value."""
    forms = _forms(net)
    root = _roots(net, forms)
    members: dict[Node, list[Node]] = {}
    for key, needed in forms.items():
        for form in needed:
            members.setdefault(root(key, form), []).append((key, form))
    readers = _readers(net)
    chosen: dict[Node, Grid] = {}
    for nodes in members.values():
        form = nodes[0][1]
        if form not in ("flags", "rotary"):
            grid = _grid(net, nodes, forms, readers, samples, widths)
            chosen.update(dict.fromkeys(nodes, grid))
    by_column = frozenset(
        key
        for key, needed in forms.items()
        if list(needed) == ["narrow"] and _free_matrices(readers[key])
    )
    for op in net.operations:
        if isinstance(op, graph.Multiply) and op.output.key in by_column:
            chosen.update(_factor_grid(net, op, readers, samples, chosen))
    for op in net.operations:
        if isinstance(op, graph.Rotate) and op.output.key in forms:
            after = chosen[(op.output.key, next(iter(forms[op.output.key])))]
            scale = float(after.scale) / 2.0 ** (widths.rotary - widths.score - 1)
            bits = after.bits + widths.rotary - widths.score
            alike = members[root(op.inputs[0], "rotary")]
            chosen.update(dict.fromkeys(alike, Grid(bits, scale)))
    order: tuple[Form, ...] = ("output", "wide", "rotary", "score", "table", "narrow", "flags")
    return Needs(
        {key: tuple(f for f in order if f in needed) for key, needed in forms.items()},
        chosen,
        frozenset(node for nodes in members.values() if len(nodes) > 1 for node in nodes),
        by_column,
    )


def _forms(net: graph.Graph) -> dict[str, dict[Form, None]]:
    forms: dict[str, dict[Form, None]] = {}
    wide = wide_factors(net)
    for output in net.outputs:
        forms.setdefault(output.value, {})["output"] = None
    # What a state is read as reaches its maker, which comes after it, the second time.
    for op in (*reversed(net.operations), *reversed(net.operations if wide else ())):
        if op.output.key not in forms:
            continue  # nothing reads it
        if isinstance(op, graph.Gather | graph.Delay):
            for key in op.inputs:
                forms.setdefault(key, {}).update(forms[op.output.key])
        for key, form in zip(op.inputs, input_forms(op, wide), strict=False):
            forms.setdefault(key, {})[form] = None
    return forms


def _roots(
    net: graph.Graph, forms: Mapping[str, Mapping[Form, None]]
) -> Callable[[str, Form], Node]:
    """Union of the nodes that must share a grid."""
    parent: dict[Node, Node] = {}

    def root(key: str, form: Form) -> Node:
        node = (key, form)
        while parent.get(node, node) != node:
            node = parent[node]
        return node

    for op in net.operations:
        for form in forms.get(op.output.key, {}):
            joined: Form | None = form if isinstance(op, graph.Gather | graph.Delay) else None
            if isinstance(op, graph.Add) and form == "wide":
                joined = "wide"
            if joined is not None:
                for key in op.inputs:
                    parent[root(key, joined)] = root(op.output.key, joined)
        if isinstance(op, graph.Add) and op.output.key in forms:
            parent[root(op.inputs[1], "wide")] = root(op.inputs[0], "wide")
    return root


def _readers(net: graph.Graph) -> dict[str, list[graph.Operation]]:
    readers: dict[str, list[graph.Operation]] = {}
    for op in net.operations:
        for key in op.inputs:
            readers.setdefault(key, []).append(op)
    return readers


def _free_matrices(ops: list[graph.Operation]) -> bool:
    return all(isinstance(op, graph.Linear) and op.grid_values is None for op in ops)


def _grid(
    net: graph.Graph,
    nodes: list[Node],
    forms: Mapping[str, Mapping[Form, None]],
    readers: Mapping[str, list[graph.Operation]],
    samples: Mapping[str, FloatArray],
    widths: Widths,
) -> Grid:
    form = nodes[0][1]
    seen = np.concatenate([samples[key].ravel() for key, _ in nodes])
    if form == "wide":
        return grids.widest(seen, widths.wide, 1.25)
    if form == "output":
        given = [o.grid_scale for o in net.outputs if o.value == nodes[0][0] and o.grid_scale]
        if given:  # the file rounds its result: so do we
            most = int(np.abs(seen).max() * 1.5 / given[0])
            return Grid(max(most.bit_length() + 1, widths.narrow + 1), given[0])
        return grids.widest(seen, widths.output, 1.5)
    bits = {"narrow": widths.narrow, "score": widths.score, "table": widths.table}[form]
    key = nodes[0][0]
    alone = len(nodes) == 1 and len(forms[key]) == 1
    producer = next((op for op in net.operations if op.output.key == key), None)
    readers_of = readers.get(key, [])
    if alone and form == "table" and isinstance(producer, graph.Linear):
        functions = [op.function for op in readers_of if isinstance(op, graph.Unary)]
        if len(functions) == 1:
            return grids.shifted(seen, bits, lambda x: expressions.evaluate(functions[0], x))
    to_matrices = all(isinstance(op, graph.Linear) for op in readers_of)
    if alone and form == "narrow" and isinstance(producer, graph.Unary) and to_matrices:
        return grids.shifted(seen, bits)
    return grids.symmetric(seen, bits)


def _factor_grid(
    net: graph.Graph,
    op: graph.Multiply,
    readers: Mapping[str, list[graph.Operation]],
    samples: Mapping[str, FloatArray],
    chosen: Mapping[Node, Grid],
) -> dict[Node, Grid]:
    """A grid by column for one factor of a product, such that the product fills its range.

    A matrix can make that factor on any grid; the guard bits keep its columns precise too.
    """
    producers = {o.output.key: o for o in net.operations}
    if any(key in wide_factors(net) for key in op.inputs):
        return {}
    product = chosen[(op.output.key, "narrow")]
    for factor, other in (op.inputs[::-1], op.inputs):
        maker = producers.get(factor)
        if not isinstance(maker, graph.Linear) or not _free_matrices([maker]):
            continue
        if len(readers[factor]) > 1:
            continue
        bits = product.bits + _FACTOR_GUARD
        columns = grids.symmetric_columns(samples[op.output.key], product.bits)
        scale = columns / float(chosen[(other, "narrow")].scale)
        reach = float((np.abs(samples[factor]).max(0) / scale).max()) or 1.0  # a factor of zeros
        return {(factor, "narrow"): Grid(bits, scale * 2.0 ** ceil(log2(reach / limit(bits))))}
    return {}

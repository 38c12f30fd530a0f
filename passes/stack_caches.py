"""Stack caches: in a `step` file, an updated cache is the rows of all steps so far.

A cache output that, for every position tried, equals the cache input with the row of that
position replaced by a new row (one-hot blend, Where, ScatterND, ScatterElements, TensorScatter:
decided by evaluation, not by pattern) becomes ``Stack(new row)``: the new rows of all steps,
along the row axis. Rows after the position are never seen, which the causal mask (checked later)
guarantees.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import tensor_operations
from hwcompile.compiler.ir.tensor_graph import Array, CachePair, Node, TensorGraph
from hwcompile.compiler.ir.tensor_operations import STRUCTURAL
from hwcompile.passes.result import PassResult, rebuild


def run(graph: TensorGraph) -> PassResult[TensorGraph]:
    """The graph without cache inputs. Raises ModelError for a cache updated in another way."""
    if graph.form != "step":
        return PassResult(graph, False)
    stacks = {pair.key: _stack(graph, pair) for pair in graph.caches}
    nodes = tuple(stacks.get(n.output, n) for n in graph.nodes)
    result = rebuild(graph, nodes, {})
    names = {pair.input_name for pair in graph.caches}
    inputs = tuple(i for i in result.inputs if i.model_name not in names)
    removed = [i for i in result.inputs if i.model_name in names]
    for given in removed:
        if any(given.key in node.inputs for node in result.nodes):
            raise ModelError(
                f"cache {given.model_name!a} is read elsewhere than where its new row is written",
                "each cache needs an output of its own; export the prefill form",
            )
    lines = tuple(f"{n.origin}: cache of {graph.steps} rows" for n in stacks.values())
    return PassResult(replace(result, inputs=inputs), True, lines)


def _stack(graph: TensorGraph, pair: CachePair) -> Node:
    cache = next(i for i in graph.inputs if i.model_name == pair.input_name)
    tainted = {cache.key}
    makers = {n.output: n for n in graph.nodes}
    for node in graph.nodes:
        if any(k in tainted for k in node.inputs):
            tainted.add(node.output)
    part, frontier = _slice_back(graph, pair.key, tainted, cache.key)
    fresh = [k for k in frontier if k in makers or any(i.key == k for i in graph.inputs)]
    if pair.key in tainted and len(fresh) == 1:
        node, new = makers[pair.key], fresh[0]
        while new in makers and _row_axis(cache.shape, makers[new].shape) is None:
            # The new row may be rearranged before it is written.
            if makers[new].op not in STRUCTURAL:
                break
            part.insert(0, makers[new])
            new = makers[new].inputs[0]
        shape = makers[new].shape if new in makers else ()
        axis = _row_axis(cache.shape, shape)
        if axis is not None and _updates(graph, part, cache.key, new, shape, pair.key, axis):
            return replace(node, op="Stack", inputs=(new,), attributes={"axis": axis}, timed=False)
    raise ModelError(
        f"cache {pair.output_name!a} is not its input with one new row at the position",
        "export the prefill form",
    )


def _slice_back(
    graph: TensorGraph, key: str, tainted: set[str], start: str
) -> tuple[list[Node], list[str]]:
    """Nodes from the cache input to ``key``, and the tensors they read that do not depend on it."""
    needed, part, frontier = {key}, [], []
    for node in reversed(graph.nodes):
        if node.output in needed and node.output in tainted:
            part.append(node)
            needed.update(node.inputs)
    for node in reversed(part):
        frontier += [k for k in node.inputs if k not in tainted and k not in graph.constants]
    # A blend reads `new * onehot`: step over such products to the row itself.
    makers = {n.output: n for n in graph.nodes}
    fresh: list[str] = []
    for k in dict.fromkeys(frontier):
        while k in makers and _reads_position(graph, makers[k]):
            part.append(makers[k])
            k = next(i for i in makers[k].inputs if i not in graph.constants)
        fresh.append(k)
    order = {n.output: i for i, n in enumerate(graph.nodes)}
    return sorted(part, key=lambda n: order[n.output]), list(dict.fromkeys(fresh))


def _reads_position(graph: TensorGraph, node: Node) -> bool:
    timed = [k for k in node.inputs if k in graph.constants and graph.constants[k].timed]
    data = [k for k in node.inputs if k not in graph.constants]
    wider = len(data) == 1 and node.op in ("Mul", "Where", "Expand")
    return wider and (bool(timed) or node.op == "Expand")


def _row_axis(cache: tuple[int, ...], new: tuple[int, ...]) -> int | None:
    if len(cache) != len(new):
        return None
    differ = [a for a, (c, n) in enumerate(zip(cache, new, strict=True)) if c != n]
    return differ[0] if len(differ) == 1 and new[differ[0]] == 1 else None


def _updates(
    graph: TensorGraph,
    part: list[Node],
    cache: str,
    new: str,
    shape: tuple[int, ...],
    target: str,
    axis: int,
) -> bool:
    generator = np.random.default_rng(0)
    cache_shape = next(i.shape for i in graph.inputs if i.key == cache)
    for step in dict.fromkeys((0, 1, graph.steps // 2, graph.steps - 1)):
        old = generator.standard_normal(cache_shape).astype(np.float32)
        row = generator.standard_normal(shape).astype(np.float32)
        values: dict[str, Array] = {cache: old, new: row}
        for node in part:
            arrays = [_read(graph, values, k, step) for k in node.inputs]
            try:
                values[node.output] = tensor_operations.evaluate(node.op, node.attributes, arrays)
            except (ValueError, IndexError):
                return False
        expected = np.moveaxis(old.copy(), axis, 0)
        expected[step] = np.moveaxis(row, axis, 0)[0]
        if not np.allclose(np.moveaxis(values[target], axis, 0), expected, atol=1e-6):
            return False
    return True


def _read(graph: TensorGraph, values: dict[str, Array], key: str, step: int) -> Array:
    if key in values:
        return values[key]
    c = graph.constants[key]
    return c.array[step] if c.timed else c.array

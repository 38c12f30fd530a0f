"""The way in: an ONNX file becomes a Graph, pass by pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from hwcompile.compiler.frontend.finish import finish
from hwcompile.compiler.frontend.lower import lower
from hwcompile.compiler.frontend.output_grids import mark_output_grids
from hwcompile.compiler.frontend.planning import make_plan
from hwcompile.compiler.frontend.trace import trace
from hwcompile.compiler.frontend.vet import vet
from hwcompile.compiler.ir.graph import Graph
from hwcompile.compiler.ir.tensor_graph import TensorGraph
from hwcompile.compiler.ir.verify_graph import verify_graph, verify_tensor_graph
from hwcompile.passes import (
    eliminate_dead_code,
    expand_softmax,
    fold_affine,
    fold_gathers,
    fuse_elementwise,
    fuse_masked_means,
    fuse_norms,
    load_weights,
    recognise_grids,
    remove_quantisers,
    stack_caches,
    tabulate_numbers,
)
from hwcompile.passes.result import PassResult

TENSOR_PASSES: tuple[tuple[str, Callable[[TensorGraph], PassResult[TensorGraph]]], ...] = (
    ("eliminate_dead_code", eliminate_dead_code.run),
    ("stack_caches", stack_caches.run),
    ("remove_quantisers", remove_quantisers.run),
    ("fuse_masked_means", fuse_masked_means.run),
    ("tabulate_numbers", tabulate_numbers.run),
    ("expand_softmax", expand_softmax.run),
    ("fuse_norms", fuse_norms.run),
    ("fuse_elementwise", fuse_elementwise.run),
)
GRAPH_PASSES: tuple[tuple[str, Callable[[Graph], PassResult[Graph]]], ...] = (
    ("load_weights", load_weights.run),
    ("fold_gathers", fold_gathers.run),
    ("fold_affine", fold_affine.run),
    ("fold_gathers", fold_gathers.run),
    ("recognise_grids", recognise_grids.run),
)


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What one pass did: for the report and ``--dump-ir``."""

    name: str
    changed: bool
    lines: tuple[str, ...]


PassLog = tuple[PassRecord, ...]


def import_graph(
    path: str | Path, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Graph, PassLog]:
    """The Graph of an ONNX file and the log of the passes that made it.

    ``shapes`` fixes open dimensions by input name. Raises ModelError.
    """
    return import_model(vet(Path(path)), shapes or {})


def import_model(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], check: bool = False
) -> tuple[Graph, PassLog]:
    """The Graph of a vetted model, as :func:`import_graph`; ``check``: verify after every pass."""
    tensors = trace(model, make_plan(model, shapes))
    log = [PassRecord("fold_constants", True, tensors.notes)]
    for name, run in TENSOR_PASSES:
        result = run(tensors)
        tensors = result.graph
        log.append(PassRecord(name, result.changed, result.lines))
        if check:
            verify_tensor_graph(tensors)
    graph, lines = finish(tensors, lower(tensors))
    graph = mark_output_grids(graph, model)
    log.append(PassRecord("lower", True, lines))
    for graph_name, graph_run in GRAPH_PASSES:
        if check:
            verify_graph(graph)
        graph_result = graph_run(graph)
        graph = graph_result.graph
        log.append(PassRecord(graph_name, graph_result.changed, graph_result.lines))
    verify_graph(graph)
    return graph, tuple(log)

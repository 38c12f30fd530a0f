"""Grids of quantised outputs: the scale a quantised file gives its results.

Rounding to few levels makes ties between classes, so a design that agrees with the file must round
its results to the same levels.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import numpy_helper

from hwcompile.compiler.ir.graph import Graph


def mark_output_grids(graph: Graph, model: onnx.ModelProto) -> Graph:
    """``graph`` with the scale of every output that the file dequantises last."""
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def scale(name: str) -> float:
        node = makers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] in constants:
            return 0.0
        tensor = constants.get(node.input[1])
        array = None if tensor is None else numpy_helper.to_array(tensor)
        return float(array.reshape(())) if array is not None and array.size == 1 else 0.0

    outputs = tuple(replace(o, grid_scale=scale(o.model_name)) for o in graph.outputs)
    return replace(graph, outputs=outputs)

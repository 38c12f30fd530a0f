"""The front-end: ONNX files in, :class:`~hwcompile.compiler.ir.graph.Graph` out."""

from hwcompile.compiler.frontend.onnx_import import (
    PassLog,
    PassRecord,
    describe_inputs,
    import_graph,
    import_model,
    load_model,
)
from hwcompile.compiler.frontend.operators import OPERATORS

__all__ = [
    "OPERATORS",
    "PassLog",
    "PassRecord",
    "describe_inputs",
    "import_graph",
    "import_model",
    "load_model",
]

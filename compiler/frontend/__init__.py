"""The front-end: ONNX files become a TensorGraph, and a TensorGraph the operations of a Graph.

``hwcompile.compiler.importing`` runs it with the passes in between.
"""

from hwcompile.compiler.frontend.external import stays_in_files
from hwcompile.compiler.frontend.finish import finish
from hwcompile.compiler.frontend.load import describe_inputs, load_model
from hwcompile.compiler.frontend.lower import lower
from hwcompile.compiler.frontend.operators import OPERATORS
from hwcompile.compiler.frontend.pair import load_models
from hwcompile.compiler.frontend.planning import make_plan
from hwcompile.compiler.frontend.trace import trace
from hwcompile.compiler.frontend.vet import vet

__all__ = [
    "OPERATORS",
    "describe_inputs",
    "finish",
    "load_model",
    "load_models",
    "lower",
    "make_plan",
    "stays_in_files",
    "trace",
    "vet",
]

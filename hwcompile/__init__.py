"""hwcompile: one trained transformer in, one chip out.

The functions of the command line, for Python::

    import hwcompile

    outcome = hwcompile.compile_model("model.onnx", hwcompile.Options(output="chip"))
    design = hwcompile.open_design("chip")
    outputs = hwcompile.run(design, {"input_ids": ids}, engine="rtl")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from hwcompile.compiler.appraisal import appraise as appraise
    from hwcompile.compiler.audit import verify as verify
    from hwcompile.compiler.catalogue import operators as operators
    from hwcompile.compiler.catalogue import passes as list_passes
    from hwcompile.compiler.catalogue import targets as targets
    from hwcompile.compiler.difference import diff as diff
    from hwcompile.compiler.errors import HwcompileError as HwcompileError
    from hwcompile.compiler.evaluate import evaluate as evaluate
    from hwcompile.compiler.execute import generate as generate
    from hwcompile.compiler.execute import open_design as open_design
    from hwcompile.compiler.execute import run as run
    from hwcompile.compiler.options import Options as Options
    from hwcompile.compiler.pipeline import compile_model as compile_model

# Name -> module and name there; loaded when first used, so that the import itself is quick.
_PUBLIC = {
    "HwcompileError": ("errors", "HwcompileError"),
    "Options": ("options", "Options"),
    "appraise": ("appraisal", "appraise"),
    "compile_model": ("pipeline", "compile_model"),
    "diff": ("difference", "diff"),
    "evaluate": ("evaluate", "evaluate"),
    "generate": ("execute", "generate"),
    "list_passes": ("catalogue", "passes"),
    "open_design": ("execute", "open_design"),
    "operators": ("catalogue", "operators"),
    "run": ("execute", "run"),
    "targets": ("catalogue", "targets"),
    "verify": ("audit", "verify"),
}

__all__ = [
    "HwcompileError",
    "Options",
    "__version__",
    "appraise",
    "compile_model",
    "diff",
    "evaluate",
    "generate",
    "list_passes",
    "open_design",
    "operators",
    "run",
    "targets",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hwcompile' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(f"hwcompile.compiler.{module}"), attribute)

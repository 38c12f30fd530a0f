"""Loading: a file is vetted and understood, or refused, before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from hwcompile.compiler.frontend.plan import model_inputs
from hwcompile.compiler.frontend.planning import make_plan
from hwcompile.compiler.frontend.trace import trace
from hwcompile.compiler.frontend.vet import vet


def load_model(
    path: str | Path, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> onnx.ModelProto:
    """The vetted model of a file: functions inlined, external data read.

    Raises ModelError: every reason a file is refused, or an open dimension that needs ``shapes``.
    """
    model = vet(Path(path))
    trace(model, make_plan(model, shapes or {}))
    return model


def describe_inputs(path: str | Path) -> tuple[tuple[str, tuple[int | str, ...], str], ...]:
    """Name, declared shape (open dimensions as text) and dtype of every input of a file."""
    return tuple((i.name, i.dims, i.dtype.name) for i in model_inputs(vet(Path(path))))

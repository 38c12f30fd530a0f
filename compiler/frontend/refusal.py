"""How a model file is refused: one error type, names from the file made safe to print."""

from __future__ import annotations

from hwcompile.compiler.errors import ModelError


def refuse(message: str, hint: str = "export the model again") -> ModelError:
    """The error to raise."""
    return ModelError(message, hint)


def escape(name: str, limit: int = 60) -> str:
    """A name from the file made safe to print: printable ASCII, cut at ``limit`` characters."""
    text = "".join(c if " " <= c <= "~" and c != "\\" else f"\\u{ord(c):04x}" for c in name)
    return text if len(text) <= limit else text[: limit - 3] + "..."

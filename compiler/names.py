"""Names in one place. Nothing taken from a model file is ever an identifier."""

from __future__ import annotations

import re

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")


class Ident(str):
    """An identifier that is legal and no keyword in Verilog, Tcl, make, YAML and file systems.

    Raises:
        ValueError: the text is none.

    >>> Ident("matrix_3")
    'matrix_3'
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Ident:
        if not _IDENTIFIER.match(text):
            raise ValueError(f"not an identifier: {text!r}")
        return super().__new__(cls, text)


def label(text: str) -> str:
    """Free text (a file name, a node name) made safe for one line of a terminal or a log.

    >>> label("a\\x1b[31mb")
    'a?[31mb'
    """
    return "".join(c if c.isprintable() else "?" for c in text)[:200]

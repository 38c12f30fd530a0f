"""Vocabulary files: a JSON list of strings, index = token id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwcompile.compiler.errors import UsageError

START, END, PADDING = "<start>", "<end>", "<pad>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token id <-> text. ``<pad>``, ``<start>`` and ``<end>`` are marks, not text."""

    symbols: tuple[str, ...]

    def special(self, mark: str) -> int | None:
        """The id of a mark, or None."""
        return self.symbols.index(mark) if mark in self.symbols else None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, the longest symbol first.

        Raises:
            UsageError: a character that no symbol begins with.

        >>> Vocabulary(("a", "b", "ab")).encode("aba")
        [2, 0]
        """
        ids = {s: i for i, s in reversed(list(enumerate(self.symbols))) if s}
        longest = max(map(len, ids), default=0)
        result, at = [], 0
        while at < len(text):
            for length in range(min(longest, len(text) - at), 0, -1):
                if text[at : at + length] in ids:
                    result.append(ids[text[at : at + length]])
                    at += length
                    break
            else:
                raise UsageError(f"{text[at]!r} is not in the vocabulary")
        return result

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, marks left out.

        >>> Vocabulary(("<end>", "a", "b")).decode([1, 2, 0])
        'ab'
        """
        marks = (START, END, PADDING)
        return "".join(
            self.symbols[t]
            for t in tokens
            if t < len(self.symbols) and self.symbols[t] not in marks
        )


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read a vocabulary file.

    Raises:
        UsageError: unreadable, or not a JSON list of strings.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(document, list) or not all(isinstance(s, str) for s in document):
        raise UsageError(f"{path} must be a JSON list of strings, index = token id")
    return Vocabulary(tuple(document))

"""The content-hash cache: stage results under a key made of code, options and inputs.

Entries are pickles in the user's own cache folder, written whole or not at all. A damaged entry is
a miss.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import pickle
from pathlib import Path
from typing import Any

LIMIT_BYTES = 2 << 30
_SOURCES = ("compiler", "hdl", "passes", "sim")


def cache_folder() -> Path:
    """``hwcompile`` in the user's XDG cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hwcompile"


@functools.cache
def code_hash() -> str:
    """sha256 over our own source and data files: new code, new keys."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        root = Path(next(iter(importlib.import_module(f"hwcompile.{name}").__path__)))
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{name}/{path.relative_to(root)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def combine(*parts: Any) -> str:
    """One key from the ``repr`` of plain parts: strings, numbers, tuples, ordered dicts."""
    return hashlib.sha256("\0".join(repr(part) for part in parts).encode()).hexdigest()


class StageCache:
    """Results of stages on disk; with ``enabled`` false it holds nothing."""

    def __init__(self, folder: Path | None = None, enabled: bool = True) -> None:
        self._folder = (folder or cache_folder()) / "stages"
        self._enabled = enabled

    def get(self, key: str) -> Any | None:
        """The stored value, or None."""
        if not self._enabled:
            return None
        path = self._folder / key
        try:
            value = pickle.loads(path.read_bytes())
            os.utime(path)
        except Exception:  # whatever is wrong with an entry, the stage can be run again
            return None
        return value

    def put(self, key: str, value: Any) -> None:
        """Store a value; a full or read-only disk is no error."""
        if not self._enabled:
            return
        temporary = self._folder / f".{key}.{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(pickle.dumps(value, protocol=5))
            temporary.replace(self._folder / key)
            self._prune()
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _prune(self) -> None:
        """Drop the entries used longest ago until the rest is small enough."""
        entries = [(p.stat().st_mtime, p.stat().st_size, p) for p in self._folder.iterdir()]
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= LIMIT_BYTES:
                break
            path.unlink(missing_ok=True)
            total -= size

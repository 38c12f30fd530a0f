"""A Program on disk: ``program.json`` (structure) and ``program.npz`` (arrays).

The JSON document (version 1)::

    {"format": "hwcompile-program", "version": 1, "form": "prefill", "sections": ["sequence"],
     "inputs":     [{"value": VALUE, "kind": "ids", "section": 0, "model_name": ..., ...}],
     "operations": [{"operation": "linear", "output": VALUE, "inputs": ["v1"], "section": 0,
                     "origin": ..., "weight": "a0", "bias": "a1", ...}],
     "outputs":    [{"value": "v9", "kind": "logits", "model_name": ..., "model_shape": [...]}],
     "caches":     [{"operation": "v7", "role": "key", "input_name": ..., "output_name": ...}]}
    VALUE = {"key": "v1", "rows": 8, "cols": 16, "bits": 8, "low": -127, "high": 127, "scale": 0.1}

``operation`` is a name of the operation table; its fields are those of the class in
:mod:`hwcompile.compiler.ir.program`. An array field holds the name of an integer array of the npz,
stored in the least integer type. The same program gives the same bytes. Loading trusts nothing: it
checks the types of all fields and runs the verifier; no pickle is ever read.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.operations import OPERATIONS
from hwcompile.compiler.ir.verify import InvalidProgram, verify_program

FORMAT = "hwcompile-program"
VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the least time stamp of a zip entry
_KINDS: Mapping[str, type[ir.Operation]] = {s.name: kind for kind, s in OPERATIONS.items()}
_NAMES: Mapping[type[ir.Operation], str] = {kind: s.name for kind, s in OPERATIONS.items()}

T = TypeVar("T")


class InvalidFile(Exception):
    """The stored program is damaged or of another version."""


def save(program: ir.Program, folder: Path) -> None:
    """Writes ``program.json`` and ``program.npz`` into an existing folder."""
    document, arrays = to_bytes(program)
    (folder / "program.json").write_bytes(document)
    (folder / "program.npz").write_bytes(arrays)


def load(folder: Path) -> ir.Program:
    """Reads and checks what :func:`save` wrote. Raises InvalidFile."""
    try:
        return from_bytes(
            (folder / "program.json").read_bytes(), (folder / "program.npz").read_bytes()
        )
    except OSError as error:
        raise InvalidFile(f"cannot read the program: {error}") from error


def to_bytes(program: ir.Program) -> tuple[bytes, bytes]:
    """The JSON document and the npz archive."""
    arrays: list[ir.IntArray] = []
    document = {
        "format": FORMAT,
        "version": VERSION,
        "form": program.form,
        "sections": list(program.sections),
        "inputs": [_record(x, arrays) for x in program.inputs],
        "operations": [
            {"operation": _NAMES[type(op)], **_record(op, arrays)} for op in program.operations
        ],
        "outputs": [_record(x, arrays) for x in program.outputs],
        "caches": [_record(x, arrays) for x in program.caches],
    }
    return (json.dumps(document, indent=1) + "\n").encode(), _archive(arrays)


def from_bytes(document: bytes, archive: bytes) -> ir.Program:
    """The program of a document and its archive, verified. Raises InvalidFile."""
    try:
        tree = json.loads(document)
        if tree["format"] != FORMAT or tree["version"] != VERSION:
            raise InvalidFile(f"expected {FORMAT} version {VERSION}")
        with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
            program = _program(tree, {name: arrays[name] for name in arrays.files})
        verify_program(program)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise InvalidFile(f"damaged program: {error!r}") from error
    except (zipfile.BadZipFile, EOFError, InvalidProgram) as error:
        raise InvalidFile(f"damaged program: {error}") from error
    return program


# --- writing --------------------------------------------------------------------------------------


def _record(x: Any, arrays: list[ir.IntArray]) -> dict[str, Any]:
    return {f.name: _plain(getattr(x, f.name), arrays) for f in fields(x)}


def _plain(x: Any, arrays: list[ir.IntArray]) -> Any:
    if isinstance(x, np.ndarray):
        arrays.append(x)
        return f"a{len(arrays) - 1}"
    if isinstance(x, ir.Value):
        return _record(x, arrays)
    return list(x) if isinstance(x, tuple) else x


def _archive(arrays: list[ir.IntArray]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, array in enumerate(arrays):
            entry = zipfile.ZipInfo(f"a{i}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, _least(array), allow_pickle=False)
    return buffer.getvalue()


def _least(array: ir.IntArray) -> np.ndarray[Any, Any]:
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(array, dtype=kind)
    return np.ascontiguousarray(array, dtype=np.int64)


# --- reading --------------------------------------------------------------------------------------


def _program(tree: dict[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> ir.Program:
    def make(kind: type[T], record: dict[str, Any]) -> T:
        names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
        if sorted(record) != sorted(names):
            raise InvalidFile(f"fields of {kind.__name__}: {sorted(record)}")
        hints = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
        return kind(**{name: read(hints[name], record[name]) for name in names})

    def read(hint: str, x: Any) -> Any:
        if hint == "Value":
            return make(ir.Value, x)
        if hint == "IntArray":
            if arrays[x].dtype.kind != "i":
                raise InvalidFile(f"array {x} is not of integers")
            return np.ascontiguousarray(arrays[x], dtype=np.int64)
        check, convert = _FIELDS.get(hint, _FIELDS["str"])
        if not check(x):
            raise InvalidFile(f"{x!r} is no {hint}")
        return convert(x)

    return ir.Program(
        tuple(tree["sections"]),
        tuple(make(ir.Input, x) for x in tree["inputs"]),
        tuple(
            make(_KINDS[x["operation"]], {k: v for k, v in x.items() if k != "operation"})
            for x in tree["operations"]
        ),
        tuple(make(ir.Output, x) for x in tree["outputs"]),
        tuple(make(ir.CacheTensor, x) for x in tree["caches"]),
        tree["form"],
    )


def _all(kind: type) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, list) and all(type(item) is kind for item in x)


#: Annotation of a field -> (check of the JSON value, conversion). Anything else is a text.
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], Any]]] = {
    "int": (lambda x: type(x) is int, int),
    "bool": (lambda x: type(x) is bool, bool),
    "float": (lambda x: type(x) in (int, float), float),
    "tuple[int, ...]": (_all(int), tuple),
    "tuple[str, ...]": (_all(str), tuple),
    "str": (lambda x: isinstance(x, str), str),
}

"""A look at the bytes of a protobuf file before it is parsed.

A parsed message takes far more memory than the two bytes an empty one has in the file. So the parts
are counted first, from the wire format alone (https://protobuf.dev/programming-guides/encoding),
with the message types of ONNX to tell a message from plain bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import onnx

from hwcompile.compiler.frontend.refusal import refuse

#: Fields of all messages together, and messages inside each other.
MAX_FIELDS = 3_000_000
MAX_DEPTH = 50

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CUT = "not an ONNX file, or cut short (protobuf does not decode)"


def check_wire(data: bytes) -> None:
    """Raises ModelError: bytes that are no protobuf, too many parts, too deep."""
    fields, size = 0, len(data)
    work: list[tuple[int, int, Any, int]] = [(0, size, onnx.ModelProto.DESCRIPTOR, 1)]
    while work:
        at, end, kind, depth = work.pop()
        inner = _messages(kind)
        while at < end:
            fields += 1
            key, at = _varint(data, at, end)
            wire = key & 7
            if wire == _VARINT:
                _, at = _varint(data, at, end)
            elif wire == _BYTES:
                length, at = _varint(data, at, end)
                if length > end - at:
                    raise refuse(_CUT)
                child = inner.get(key >> 3)
                if child is not None:
                    work.append((at, at + length, child, depth + 1))
                at += length
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
                if at > end:
                    raise refuse(_CUT)
            else:
                raise refuse(_CUT)
        if fields + len(work) > MAX_FIELDS:
            raise refuse(f"the file has more than {MAX_FIELDS} parts", "a smaller model")
        if depth > MAX_DEPTH:
            raise refuse(f"graphs are nested more than {MAX_DEPTH} deep", "a flat graph")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of at most 64 bits and the place after it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise refuse(_CUT)


@cache
def _messages(kind: Any) -> Mapping[int, Any]:
    """Field numbers of a message type that hold messages, with their types."""
    return {f.number: f.message_type for f in kind.fields if f.message_type is not None}

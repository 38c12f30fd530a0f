"""Programs on disk: round trip, equal bytes, damaged files refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.ir import serialise
from tests import programs

PROGRAMS = {
    "decoder": programs.tiny_decoder(),
    "encoder": programs.tiny_encoder(),
    "tensor": programs.tiny_encoder(tokens=False),
    "encoder-decoder": programs.tiny_encoder_decoder(),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    serialise.save(program, tmp_path)
    loaded = serialise.load(tmp_path)
    assert serialise.to_bytes(loaded) == serialise.to_bytes(program)
    assert loaded.inputs == program.inputs and loaded.outputs == program.outputs
    for a, b in zip(loaded.operations, program.operations, strict=True):
        assert type(a) is type(b) and a.output == b.output and a.inputs == b.inputs


def test_archive_is_readable_without_us_and_holds_no_time() -> None:
    _, archive = serialise.to_bytes(PROGRAMS["decoder"])
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind == "i" for name in arrays.files)


Change = Callable[[dict[str, Any]], Any]
DAMAGE: dict[str, Change] = {
    "version": lambda t: t.update(version=99),
    "format": lambda t: t.update(format="other"),
    "operation": lambda t: t["operations"][0].update(operation="teleport"),
    "field missing": lambda t: t["operations"][2].pop("weight"),
    "field too many": lambda t: t["operations"][2].update(extra=1),
    "array missing": lambda t: t["operations"][2].update(weight="a999"),
    "array of a path": lambda t: t["operations"][2].update(weight=["../x"]),
    "text for a number": lambda t: t["operations"][2]["output"].update(bits="8"),
    "number for a truth": lambda t: t["operations"][7].update(causal=1),
    "interval": lambda t: t["operations"][2]["output"].update(low=0),
    "order": lambda t: t["operations"].reverse(),
    "section": lambda t: t["operations"][2].update(section=3),
    "no object": lambda t: t.update(operations=5),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_documents_are_refused(name: str) -> None:
    document, archive = serialise.to_bytes(PROGRAMS["decoder"])
    tree = json.loads(document)
    DAMAGE[name](tree)
    with pytest.raises(serialise.InvalidFile):
        serialise.from_bytes(json.dumps(tree).encode(), archive)


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_document_is_refused(document: bytes) -> None:
    with pytest.raises(serialise.InvalidFile):
        serialise.from_bytes(document, serialise.to_bytes(PROGRAMS["decoder"])[1])


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    document, archive = serialise.to_bytes(PROGRAMS["decoder"])
    for broken in (b"", archive[: len(archive) // 2], b"PK" + bytes(100)):
        with pytest.raises(serialise.InvalidFile):
            serialise.from_bytes(document, broken)
    with pytest.raises(serialise.InvalidFile):
        serialise.load(tmp_path)


def test_pickles_are_never_read() -> None:
    document, _ = serialise.to_bytes(PROGRAMS["decoder"])
    buffer = io.BytesIO()
    np.savez(buffer, a0=np.array([{"x": 1}], dtype=object))
    with pytest.raises(serialise.InvalidFile):
        serialise.from_bytes(document, buffer.getvalue())

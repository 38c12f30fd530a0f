"""Files that are small on disk and large when read, and the campaign that looks for more."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from benchmarks import damage, hostile
from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend import wire
from hwcompile.compiler.frontend.vet import open_model

TINY = Path(__file__).parents[2] / "examples" / "tiny" / "tiny.onnx"


def test_empty_messages_are_counted_before_they_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_FIELDS", 10_000)
    nodes = b"\x0a\x00" * 20_000  # as many empty nodes
    length = len(nodes)
    size = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
    path = tmp_path / "bomb.onnx"
    path.write_bytes(b"\x08\x08\x3a" + size + nodes)  # ir_version 8, then the graph
    assert len(onnx.load(path).graph.node) == 20_000
    with pytest.raises(ModelError, match="more than 10000 parts"):
        open_model(path)


def test_the_count_lets_models_through() -> None:
    wire.check_wire(TINY.read_bytes())


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x05ab", b"\xff" * 12, b"\x0b", b"\x0d\x00"])
def test_bytes_that_are_no_messages_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="does not decode"):
        wire.check_wire(data)


@pytest.mark.parametrize("count", [12, 40])
def test_functions_that_explode_are_measured_and_not_inlined(tmp_path: Path, count: int) -> None:
    model = onnx.load(TINY)
    damage._functions(model, count)
    model.graph.node.append(onnx.helper.make_node("F0", ["x"], ["boom"], domain="own"))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"over 200000 nodes|deep"):
        open_model(tmp_path / "m.onnx")


def test_every_kind_of_damage_is_repeatable_and_harmless(tmp_path: Path) -> None:
    content = TINY.read_bytes()
    for kind in damage.KINDS:
        made = {damage.damaged(content, kind, 7, tmp_path) for _ in range(2)}
        assert len(made) == 1
    found = [hostile.trial(TINY, n, 0) for n in range(0, len(damage.KINDS))]
    assert {t.verdict for t in found} <= {"ok", "refused"}


def test_the_campaign_notices_what_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise IndexError("a defect")

    monkeypatch.setattr(hostile, "import_graph", broken)
    assert hostile.trial(TINY, 0, 0).verdict.startswith("IndexError in")
    page = hostile.markdown([hostile.trial(TINY, 0, 0)], 1, "test")
    assert "**1 defects.**" in page

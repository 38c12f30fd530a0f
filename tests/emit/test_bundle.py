"""Writing bundles: whole or not at all, refused where they would destroy something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwcompile.compiler.emit import bundle, manifest
from hwcompile.compiler.emit.manifest import Manifest
from hwcompile.compiler.errors import OutputError

ORIGIN = Manifest({"sha256": "0"}, {"seed": 0}, {"numpy": "2"}, {})
FILES = {"rtl/a.v": b"module a;\nendmodule\n", "report.json": b"{}\n"}


def test_a_bundle_holds_the_files_and_their_hashes(tmp_path: Path) -> None:
    bundle.write(tmp_path / "d", FILES, ORIGIN)
    found = manifest.read(tmp_path / "d")
    assert found is not None and sorted(found.files) == sorted(FILES)
    assert manifest.differences(tmp_path / "d", found) == []
    assert bundle.up_to_date(tmp_path / "d", ORIGIN)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        bundle.write(tmp_path / name, FILES, ORIGIN)
    one, two = ((tmp_path / name / "manifest.json").read_bytes() for name in ("one", "two"))
    assert one == two and str(tmp_path).encode() not in one


def test_a_second_bundle_replaces_the_first(tmp_path: Path) -> None:
    bundle.write(tmp_path / "d", FILES, ORIGIN)
    bundle.check_destination(tmp_path / "d", force=False)
    bundle.write(tmp_path / "d", {"other.txt": b"x"}, ORIGIN)
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["manifest.json", "other.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda d: (d / "rtl/a.v").write_text("changed"), "rtl/a.v: changed"),
        (lambda d: (d / "rtl/a.v").unlink(), "rtl/a.v: missing"),
        (lambda d: (d / "rtl/b.v").write_text(""), "rtl/b.v: not in the manifest"),
    ],
)
def test_changes_on_disk_are_named(tmp_path: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    bundle.write(tmp_path / "d", FILES, ORIGIN)
    damage(tmp_path / "d")
    found = manifest.read(tmp_path / "d")
    assert found is not None and manifest.differences(tmp_path / "d", found) == [said]
    assert not bundle.up_to_date(tmp_path / "d", ORIGIN)


def test_what_a_simulation_leaves_behind_is_no_difference(tmp_path: Path) -> None:
    bundle.write(tmp_path / "d", FILES, ORIGIN)
    (tmp_path / "d/sim/build").mkdir(parents=True)
    (tmp_path / "d/sim/build/x.o").write_text("")
    bundle.check_destination(tmp_path / "d", force=False)
    assert bundle.up_to_date(tmp_path / "d", ORIGIN)


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="not written by hwcompile"):
        bundle.check_destination(tmp_path / "mine", force=False)
    bundle.check_destination(tmp_path / "mine", force=True)


def test_a_bundle_with_a_users_own_files_is_refused(tmp_path: Path) -> None:
    bundle.write(tmp_path / "d", FILES, ORIGIN)
    (tmp_path / "d/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        bundle.check_destination(tmp_path / "d", force=False)


def test_a_file_in_the_way_is_refused_even_with_force(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        bundle.check_destination(tmp_path / "d", force=True)


def test_the_working_folder_is_refused_even_with_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="no place"):
        bundle.check_destination(Path(), force=True)


def test_an_unreadable_manifest_is_no_manifest(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", json.dumps({"schema": "hwcompile-manifest/1", "files": 3})):
        (tmp_path / "manifest.json").write_text(text)
        assert manifest.read(tmp_path) is None


def test_a_killed_writer_leaves_the_old_bundle(tmp_path: Path) -> None:
    bundle.write(tmp_path / "d", FILES, ORIGIN)
    before = (tmp_path / "d/manifest.json").read_bytes()
    script = """
import os, sys
from pathlib import Path
from hwcompile.compiler.emit import bundle
from hwcompile.compiler.emit.manifest import Manifest
class Files(dict):
    def items(self):
        yield "first.txt", b"1"
        os.kill(os.getpid(), 9)
bundle.hashes = lambda files: {}
import builtins
bundle.sorted = iter
bundle.write(Path(sys.argv[1]), Files(), Manifest({}, {}, {}, {}))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "d")], check=False)
    assert done.returncode == -9
    assert (tmp_path / "d/manifest.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
    bundle.write(tmp_path / "d", FILES, ORIGIN)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        bundle.check_destination(tmp_path / "d", force=False)

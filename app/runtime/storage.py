"""Directories that are whole or absent, whatever kills the process or the power that writes them."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.errors import StorageError
from app.runtime.faults import reach


def write_directory(path: Path, contents: Mapping[str, bytes], last: tuple[str, bytes]) -> None:
    """Make the directory `path` of these files, `last` after all others. One that is there is replaced.

    Everything is on disk before `path` gets its name by one rename, and the name before this returns. Raises OSError,
    and leaves nothing behind then; a killed process leaves `.NAME.tmp-PID`, which `remove_leftovers` removes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.mkdir()
        for name, content in (*contents.items(), last):
            _write(temporary / name, content)
        sync(temporary)
        if path.exists():
            move_aside(path, "replaced")
            reach("checkpoint.replaced")
        os.replace(temporary, path)
        sync(path.parent)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    reach("checkpoint.renamed")


def remove_leftovers(directory: Path, pattern: str) -> None:
    """Remove what killed writers of names like `pattern` left in `directory`, and what was replaced there."""
    put_back(directory, pattern)
    for found in (directory.glob(f"{kind}{pattern}{end}") for kind, end in ((".", ".tmp-*"), ("replaced-", ""))):
        for path in found:
            shutil.rmtree(path, ignore_errors=True)


def put_back(directory: Path, pattern: str) -> None:
    """Give what was moved aside its name again where its writer was killed before the new one had it."""
    for path in directory.glob(f"replaced-{pattern}"):
        name = path.name.removeprefix("replaced-").rpartition("-")[0]
        if not (directory / name).exists():
            path.rename(directory / name)


def remove_directory(path: Path) -> None:
    """Remove what `write_directory` made; it loses its name first, so that one half removed is none."""
    nameless = path.rename(path.with_name(f".{path.name}.tmp-{os.getpid()}"))
    reach("checkpoint.removed")
    shutil.rmtree(nameless, ignore_errors=True)


def move_aside(path: Path, why: str) -> Path:
    """Rename to `WHY-NAME-1`, or the next number that is free. Returns the new path."""
    aside = next(p for i in range(1, 1000) if not (p := path.with_name(f"{why}-{path.name}-{i}")).exists())
    return path.rename(aside)


def check_room(directory: Path, needed: int) -> None:
    """Raise StorageError where the disk has less than `needed` bytes left."""
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StorageError(
            f"{directory}: {free / 2**20:,.0f} MiB are free, {needed / 2**20:,.0f} are needed; "
            "free space there or set run_dir elsewhere"
        )


def described(content: bytes) -> dict[str, Any]:
    """A file's size and sha256, for a manifest."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write(path: Path, content: bytes) -> None:
    half = len(content) // 2
    with path.open("wb") as file:
        reach("checkpoint.opened")
        file.write(content[:half])
        reach("checkpoint.half")
        file.write(content[half:])
        file.flush()
        reach("checkpoint.written")
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Return when a file, or a directory's names, are on the disk itself. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(directory: Path) -> None:
    """`sync` of all that is below a directory, and of its own name."""
    for path in (*directory.rglob("*"), directory, directory.parent):
        sync(path)

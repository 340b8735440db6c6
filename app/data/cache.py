"""Prepared data that several runs share: directories named by what is in them, built once, never half there."""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.errors import StorageError

RACY_SECONDS = 2.0  # a file that changed so lately may change again within the clock's grain


def key(**contents: Any) -> str:
    """A short name for everything that a result depends on. Values are plain data."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


def identity(path: Path) -> str:
    """A name for a file as it is, without a look into it: place, inode, size and times."""
    stat = path.stat()
    return key(path=str(path.resolve()), stat=[stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])


def digest(path: Path, cache_dir: Path) -> str:
    """The SHA-256 of a file's content. Remembered in `cache_dir` as long as inode, size and times do not change.

    Raises StorageError where `cache_dir` cannot be written.
    """
    stat, name = path.stat(), identity(path)
    memory = cache_dir / "digests" / name
    if memory.is_file() and len(remembered := memory.read_text()) == 64:
        return remembered
    with path.open("rb") as file:
        result = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - max(stat.st_mtime, stat.st_ctime) > RACY_SECONDS:
        temporary = memory.with_name(f".{name}.{secrets.token_hex(4)}")
        with _writing(memory):
            memory.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(result)
            temporary.replace(memory)
    return result


def cached(directory: Path, build: Callable[[Path], None]) -> Path:
    """`directory`; if it is not there, `build(temporary)` fills a temporary one, which is then renamed.

    Two processes that start at once do not both build: the second waits. Where the file system has no locks both build,
    and one result is kept. A full disk is a `StorageError`, and nothing is left behind.
    """
    if directory.is_dir():
        return directory
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with _writing(directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
            with _lock(directory.with_name(f".{directory.name}.lock")) as locked:
                if directory.is_dir():
                    return directory
                if locked:  # what a killed process left
                    for left in directory.parent.glob(f".{directory.name}.*.tmp"):
                        shutil.rmtree(left, ignore_errors=True)
                temporary.mkdir()
                build(temporary)
                if not directory.is_dir():
                    temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the disk refuses inside is told as a `StorageError` of `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); make room or set cache_dir") from None


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Hold the file's lock; False where the file system has none. The kernel frees it when the process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            locked = True
        except OSError:
            locked = False
        yield locked

"""One process writes a run directory at a time."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from app.errors import LockedError, StorageError

MOMENT = 1.0  # seconds in which someone who only looks whether the directory is in use has gone again


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory/.lock`; the kernel frees it at any death. Raises LockedError that names the holder."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{directory}: {error.strerror}; set run_dir to a directory that can be written") from None
    with file:
        if not taken(file):
            file.seek(0)
            holder = file.read().strip() or "another process"
            mend = "stop it, or set run_dir to another directory"
            raise LockedError(f"{directory}: in use by {holder}; {mend}")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def taken(file: TextIO) -> bool:
    """Whether the lock could be had within a moment: `app.report` holds it while it looks."""
    until = time.monotonic() + MOMENT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        else:
            return True

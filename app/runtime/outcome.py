"""How a run ended, as a file beside it: what `app.report` says of a run that is not running."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.errors import Stopped

FILE_NAME = "outcome.json"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@contextmanager
def noted(run_dir: Path) -> Iterator[None]:
    """Writes `outcome.json` when the block ends; there is none while it runs, nor after a SIGKILL."""
    path = run_dir / FILE_NAME
    path.unlink(missing_ok=True)
    try:
        yield
    except (Stopped, SystemExit, KeyboardInterrupt) as stop:  # a batch system's handler ends a job by SystemExit
        note(path, STOPPED, str(stop) if isinstance(stop, Stopped) else "stopped by a signal")
        raise
    except BaseException as error:
        note(path, FAILED, f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    note(path, FINISHED)


def note(path: Path, state: str, reason: str = "") -> None:
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps({"state": state, "reason": reason}) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError:  # a full disk has its own error; a missing note only leaves the run's state unknown
        temporary.unlink(missing_ok=True)


def read_outcome(run_dir: Path) -> dict[str, Any] | None:
    """{"state", "reason"}, or None where the run has not ended by itself."""
    try:
        value = json.loads((run_dir / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and {"state", "reason"} <= value.keys() else None

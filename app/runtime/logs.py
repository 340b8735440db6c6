"""Where log messages go: to standard error, and to a file of the run. Standard output is left to results."""

import logging
from pathlib import Path

import rich
from rich.logging import RichHandler

from app.errors import StorageError

FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


def log_to_stderr(level: int = logging.INFO) -> None:
    """Replace the root logger's handlers: colours on a terminal, plain lines elsewhere.

    The terminal's handler and the progress bar write through the one console that `rich.get_console()` returns, so that
    a message scrolls above the bar. Records marked `on_bar` are not shown there, because the bar shows their numbers.
    """
    rich.reconfigure(stderr=True)
    console = rich.get_console()
    handler: logging.Handler
    if console.is_interactive:
        handler = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")
        handler.addFilter(lambda record: not getattr(record, "on_bar", False))
        handler.setFormatter(logging.Formatter("%(name)s | %(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(FORMAT, DATE_FORMAT))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


def log_to_file(path: Path) -> logging.Handler:
    """Also append every message to `path`, whose directory is made; close the returned handler with `stop_log_file`.

    Raises StorageError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        mend = "free space there or set run_dir elsewhere"
        raise StorageError(f"{path}: cannot be written ({error.strerror}); {mend}") from None
    handler.setFormatter(logging.Formatter(FORMAT, DATE_FORMAT))
    logging.getLogger().addHandler(handler)
    return handler


def stop_log_file(handler: logging.Handler) -> None:
    """Undo `log_to_file`, so that the next job of a multirun does not write into this run's file."""
    logging.getLogger().removeHandler(handler)
    handler.close()

"""Where log messages go: to standard error, and to a file of the run. Standard output is left to results."""

import logging
import sys
from contextlib import suppress
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


class LogFile(logging.FileHandler):
    """A file of log messages. A disk that refuses one is told of once; then the file gets no more."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        logging.getLogger().removeHandler(self)
        error = sys.exc_info()[1]
        logging.getLogger(__name__).warning("%s: %s; nothing more is written there", self.baseFilename, error)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written cannot be flushed either
            super().close()


def log_to_file(path: Path) -> logging.Handler:
    """Also append every message to `path`, whose directory is made; close the returned handler with `stop_log_file`.

    Raises StorageError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = LogFile(path, encoding="utf-8")
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

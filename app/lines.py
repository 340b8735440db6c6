"""Lines of text into and out of a command. A line ends at `\\n` and nowhere else, and none is ever lost."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from app.data.corpus import TextFile
from app.errors import ConfigError, StorageError


def read_lines(name: str) -> Iterator[str]:
    """The lines of a file, plain or `.gz`, or of standard input (`-`), one at a time.

    Bytes that are not UTF-8 become U+FFFD, with a warning that names file and line.
    """
    if Path(name).is_file():
        yield from (line for line in TextFile(Path(name), "replace") if line is not None)
        return
    with sys.stdin.buffer if name == "-" else Path(name).open("rb") as stream:  # a pipe: it cannot be asked for a place
        for line in stream:
            yield line.decode(errors="replace").removesuffix("\n").removesuffix("\r")


def is_unicode(line: str) -> bool:
    """Whether a text can be written: JSON and Python may have one half of a UTF-16 pair alone."""
    return not any("\ud800" <= letter <= "\udfff" for letter in line)


def whole_lines(name: str) -> int:
    """How many whole lines a file holds, 0 if there is none. What a killed program left of its last line is cut off."""
    path = Path(name)
    if not path.is_file():
        return 0
    count = end = position = 0
    with path.open("r+b") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
            if (last := block.rfind(b"\n")) >= 0:
                end = position + last + 1
            position += len(block)
        file.truncate(end)
    return count


@contextmanager
def opened_output(name: str | None, source: str | None = None, append: bool = False) -> Iterator[TextIO]:
    """Where results are written: a file, or standard output for None. UTF-8, with `\\n`, whatever the locale.

    With `append`, after what the file holds. Raises `ConfigError` where it is the file that lines come from, which to
    open would empty.
    """
    if name is None:
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        if source is not None and Path(source).is_file() and Path(name).is_file() and Path(name).samefile(source):
            raise ConfigError([f"output_file={name}: is the same file as input={source}; give another"])
        with Path(name).open("a" if append else "w", encoding="utf-8", newline="\n") as file:
            yield file
    except OSError as error:
        raise StorageError(f"{name}: cannot be written ({error.strerror}); give another output_file") from None

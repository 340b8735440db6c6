"""Text: `SPLIT.LANG` or `SPLIT.LANG.gz`, a sentence a line; in parallel text the lines of two files belong together.

Lines end at `\\n` and nowhere else (`str.splitlines` would also cut at U+2028 and shift a parallel corpus). A carriage
return before it and a byte order mark at the file's start are not text. Files are streamed, never held.
"""

import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.errors import DataError

log = logging.getLogger(__name__)

POLICIES = ("error", "skip", "replace")  # what to do with a line that is no text
LONGEST_LINE = 1 << 24  # bytes; beyond it a file is not lines of text
BOM = b"\xef\xbb\xbf"


class PairFiles(NamedTuple):
    """The two files of one split in one directory."""

    source: Path
    target: Path


def find_file(directory: Path, split: str, lang: str) -> Path | None:
    """The file of a split in a language, plain or compressed; None where there is none."""
    found = [path for path in (directory / f"{split}.{lang}", directory / f"{split}.{lang}.gz") if path.is_file()]
    if len(found) == 2:
        raise DataError(f"{found[0]}: stands beside {found[1].name}; remove one of the two")
    return found[0] if found else None


def find_pair(directory: Path, split: str, source_lang: str, target_lang: str) -> PairFiles | None:
    source, target = (find_file(directory, split, lang) for lang in (source_lang, target_lang))
    if source is None and target is None:
        return None
    if source is None or target is None:
        missing = target_lang if target is None else source_lang
        raise DataError(f"{directory}: {split}.{missing} is missing beside {source or target}; add it")
    return PairFiles(source, target)


def find_texts(directory: Path) -> dict[str, set[str]]:
    """{split: languages} of all that is named SPLIT.LANG or SPLIT.LANG.gz."""
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; give the one that holds SPLIT.LANG files")
    splits: dict[str, set[str]] = {}
    for path in directory.iterdir():
        split, _, lang = path.name.removesuffix(".gz").rpartition(".")
        if split and lang and path.is_file():
            splits.setdefault(split, set()).add(lang)
    return dict(sorted(splits.items()))


def find_splits(directory: Path) -> dict[str, set[str]]:
    """{split: languages} of every split that is there in two languages or more."""
    return {split: langs for split, langs in find_texts(directory).items() if len(langs) > 1}


class TextFile:
    """The lines of one file, one pass. None stands for a line that `on_bad_line=skip` leaves out.

    With `error` a bad line (not UTF-8, a NUL character, over 16 MiB) raises a `DataError` naming file, line and
    column; with `replace` it is kept, U+FFFD standing for what cannot be read.
    """

    def __init__(self, path: Path, on_bad_line: str):
        self.path, self.on_bad_line = path, on_bad_line
        self.lines = 0
        self.bytes_read = 0  # of the file on disk, compressed or not
        self.carriage_returns = 0

    def __iter__(self) -> Iterator[str | None]:
        try:
            with self.path.open("rb") as raw:
                lines = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if self.path.suffix == ".gz" else raw
                while line := lines.readline(LONGEST_LINE):
                    self.lines += 1
                    self.bytes_read = raw.tell()
                    yield self._decode(line, lines)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: cannot be read after line {self.lines} ({error}); copy it again") from None
        if self.carriage_returns:
            log.info("%s: %d lines end in CR LF; the CR is not taken as text", self.path, self.carriage_returns)

    def _decode(self, line: bytes, rest: BinaryIO) -> str | None:
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (more := rest.readline(LONGEST_LINE)) and not more.endswith(b"\n"):
                pass
            return self._bad(line.decode(errors="replace"), "is longer than 16 MiB; cut it")
        line = line.removesuffix(b"\n")
        if line.endswith(b"\r"):
            self.carriage_returns += 1
            line = line[:-1]
        if self.lines == 1:
            line = line.removeprefix(BOM)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            fault = f"is not UTF-8 (byte {line[error.start]:#04x} at column {error.start + 1}); re-encode it"
            return self._bad(line.decode(errors="replace"), fault)
        if (column := text.find("\0")) >= 0:
            return self._bad(text.replace("\0", "\ufffd"), f"has a NUL character at column {column + 1}; remove it")
        return text

    def _bad(self, replacement: str, fault: str) -> str | None:
        if self.on_bad_line == "error":
            raise DataError(f"{self.path}: line {self.lines} {fault}, or set task.on_bad_line=skip")
        log.warning("%s: line %d %s (on_bad_line=%s)", self.path, self.lines, fault, self.on_bad_line)
        return replacement if self.on_bad_line == "replace" else None


def read_together(*files: TextFile) -> Iterator[tuple[str, ...] | None]:
    """Lines that belong together; None where one of them is bad. Files of different length are a `DataError`."""
    first, *others = files
    for lines in zip_longest(*files):
        if all(file.lines == first.lines for file in others):
            whole = tuple(line for line in lines if line is not None)
            yield whole if len(whole) == len(files) else None
    for other in others:
        if other.lines != first.lines:
            raise DataError(
                f"{first.path} has {first.lines} lines and {other.path} has {other.lines}; they must be translations "
                "of each other, line by line"
            )

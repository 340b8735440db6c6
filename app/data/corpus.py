"""Text: `SPLIT.LANG` or `SPLIT.LANG.gz`, a sentence a line; in parallel text the lines of two files belong together.

A directory that holds fairseq's binarised data instead has `SPLIT.SRC-TGT.LANG.idx`, or `SPLIT.idx` of one text, whose
language is called `idx` here; text beside it is not looked at.

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

from app.data.indexed import SUFFIX
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
    """The file of a split in a language, plain, compressed or binarised; None where there is none."""
    if is_binarised(directory):
        return find_binarised(directory, split, lang)
    found = [path for path in (directory / f"{split}.{lang}", directory / f"{split}.{lang}.gz") if path.is_file()]
    if len(found) == 2:
        raise DataError(f"{found[0]}: stands beside {found[1].name}; remove one of the two")
    return found[0] if found else None


def is_binarised(directory: Path) -> bool:
    return next(directory.glob(f"*{SUFFIX}"), None) is not None


def find_binarised(directory: Path, split: str, lang: str) -> Path | None:
    """The one `.idx` of a split in a language, which several pairs of languages may have."""
    of_one_text = [directory / f"{split}{SUFFIX}"] if lang == SUFFIX[1:] else []
    named = [*of_one_text, *sorted(directory.glob(f"{split}.*-*.{lang}{SUFFIX}"))]
    found = [path for path in named if path.is_file()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{directory}: {lang} of {split} stands in {names}; put each pair into a directory of its own")
    return found[0] if found else None


def find_pair(directory: Path, split: str, source_lang: str, target_lang: str) -> PairFiles | None:
    for pair in (f"{source_lang}-{target_lang}", f"{target_lang}-{source_lang}"):
        both = [directory / f"{split}.{pair}.{lang}{SUFFIX}" for lang in (source_lang, target_lang)]
        if all(path.is_file() for path in both):
            return PairFiles(*both)
    source, target = (find_file(directory, split, lang) for lang in (source_lang, target_lang))
    if source is None and target is None:
        return None
    if source is None or target is None:
        missing = target_lang if target is None else source_lang
        raise DataError(f"{directory}: {split}.{missing} is missing beside {source or target}; add it")
    return PairFiles(source, target)


def find_texts(directory: Path) -> dict[str, set[str]]:
    """{split: languages} of all that is named SPLIT.LANG or SPLIT.LANG.gz, or of what is binarised."""
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; give the one that holds SPLIT.LANG files")
    splits: dict[str, set[str]] = {}
    ids = is_binarised(directory)
    for path in directory.glob(f"*{SUFFIX}") if ids else directory.iterdir():
        split, lang = binarised_name(path) if ids else text_name(path)
        if split and lang and path.is_file():
            splits.setdefault(split, set()).add(lang)
    return dict(sorted(splits.items()))


def text_name(path: Path) -> tuple[str, str]:
    """Split and language; both are empty where the name has none."""
    split, _, lang = path.name.removesuffix(".gz").rpartition(".")
    return split, lang


def binarised_name(path: Path) -> tuple[str, str]:
    """`train.de-en.de.idx` -> train, de; `train.idx` -> train, idx."""
    *split, pair, lang = ["", "", *path.stem.split(".")]
    if lang in pair.split("-") and "-" in pair:
        return ".".join(split[2:]), lang
    return path.stem, SUFFIX[1:]


def binarised_pair(directory: Path) -> list[str]:
    """Source and target as the names of binarised files say; nothing where they name no whole pair or several."""
    pairs: dict[str, set[str]] = {}
    for path in directory.glob(f"*.*-*.*{SUFFIX}"):
        *_, pair, lang = path.stem.split(".")
        pairs.setdefault(pair, set()).add(lang)
    whole = [pair.split("-") for pair, langs in pairs.items() if langs == {*pair.split("-")}]
    return whole[0] if len(whole) == 1 else []


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

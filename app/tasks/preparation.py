"""Text becomes stores of ids, once; after that, opening them takes milliseconds."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.data.cache import cached, digest, key
from app.data.corpus import TextFile, read_together
from app.data.parallel import in_chunks, parallel_map
from app.data.store import Store, write_store
from app.interfaces import Shard
from app.tasks.binarised import binarised, decoded_lines, encoded_rows, stores_in_place
from app.tasks.shares import ALONE, COUNTS, directory_of, join, of_share, this_share
from app.tasks.text import CHUNK, Text

log = logging.getLogger(__name__)

VERSION = 2  # of the prepared directories; part of every cache key
Encoded = tuple[NDArray[np.int32], NDArray[np.int64]]


class Encodes(Protocol):
    """What makes a store of a file's lines: a `Text`, or what else belongs to its lines, such as alignments."""

    @property
    def vocabulary(self) -> Sized:
        """All the numbers that a store has room for."""

    def encode_lines(self, lines: Iterable[str]) -> Encoded:
        """The numbers of all lines in turn, and how many belong to each."""

    def fingerprint(self) -> str:
        """A name for everything that these numbers depend on."""


@dataclass(frozen=True)
class Prepared:
    """All rows of a split that could be read, several directories' one after another."""

    directory: Path
    stores: tuple[Store, ...]  # one for each text: source and target, or one alone
    rows: list[int]  # how many each directory gave
    bad_lines: int  # rows that on_bad_line=skip left out


def prepare(
    files: Sequence[tuple[Path, ...]],
    texts: Mapping[str, Encodes],
    on_bad_line: str,
    num_workers: int,
    cache_dir: Path,
) -> Prepared:
    """Find the encoded rows in the cache, or encode them with `num_workers` processes (0: one a core).

    Each directory gives a file for each of `texts`, in this order, whose lines belong together. What fairseq binarised
    is read where it is; several such directories are put together in the cache. Inside `shares.encoding` a job encodes
    its share only, and MissingSharesError is raised until all are there.
    """
    if (there := stores_in_place(files, only_text(texts.values()), cache_dir)) is not None:
        return Prepared(files[0][0].parent, there, [len(there[0])], 0)
    name = key(
        version=VERSION,
        files=[[digest(path, cache_dir) for path in paths] for paths in files],
        text=[text.fingerprint() for text in texts.values()],
        on_bad_line=on_bad_line,
    )

    rows, share = cache_dir / f"rows-{name}", this_share()

    def build(directory: Path) -> None:
        chunks: list[list[int]] = [[] for _ in files]
        bad_lines: list[int] = []
        with ExitStack() as stack:
            adds = [
                stack.enter_context(write_store(directory / f"{side}.store", len(text.vocabulary)))
                for side, text in texts.items()
            ]
            for paths, lengths_of_chunks in zip(files, chunks):
                reader = _Reader(paths, on_bad_line, share)
                for encoded in reader.encoded(tuple(texts.values()), num_workers):
                    for add, (ids, lengths) in zip(adds, encoded, strict=True):
                        add(ids, lengths)
                    lengths_of_chunks.append(len(encoded[0][1]))
                bad_lines.append(reader.bad_lines)
        kept = {"chunks": chunks} if share != ALONE else {"rows": [sum(each) for each in chunks]}
        (directory / COUNTS).write_text(json.dumps({**kept, "bad_lines": bad_lines}))

    if share == ALONE:
        cached(rows, build)
    elif not rows.is_dir():
        cached(directory_of(rows, share), build)
        join(rows, [(side, len(text.vocabulary)) for side, text in texts.items()], share.world_size)
    counts = json.loads((rows / COUNTS).read_text())
    stores = tuple(Store(rows / f"{side}.store") for side in texts)
    return Prepared(rows, stores, counts["rows"], sum(counts["bad_lines"]))


def only_text(texts: Iterable[Encodes]) -> list[Text]:
    """Those that encode text: nothing else is ever binarised."""
    return [text for text in texts if isinstance(text, Text)]


def rows_of(
    paths: Sequence[Path], texts: Callable[[], Sequence[Text]], on_bad_line: str
) -> Iterator[tuple[str, ...] | None]:
    """The lines that belong together, as text; None for a bad one. Ids become text by `texts`, which text needs not."""
    if binarised(paths):
        return zip(*(decoded_lines(path, text) for path, text in zip(paths, texts(), strict=True)), strict=True)
    return read_together(*(TextFile(path, on_bad_line) for path in paths))


class _Reader:
    """The rows of files that belong together, in chunks, with a progress bar on a terminal's standard error."""

    def __init__(self, paths: Sequence[Path], on_bad_line: str, share: Shard):
        self._paths, self._on_bad_line, self._share = paths, on_bad_line, share
        self.bad_lines = 0

    def encoded(self, texts: tuple[Encodes, ...], num_workers: int) -> Iterator[list[Encoded]]:
        """Ids and lengths for each file, chunk by chunk."""
        if binarised(self._paths):
            return of_share(encoded_rows(self._paths, only_text(texts)), self._share)
        return parallel_map(_Encoder(texts), self.chunks(), num_workers)

    def chunks(self) -> Iterator[list[tuple[str, ...]]]:
        files = [TextFile(path, self._on_bad_line) for path in self._paths]
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(f"encoding {files[0].path.name}", total=files[0].path.stat().st_size)
            for chunk in of_share(in_chunks(read_together(*files), CHUNK), self._share):
                rows = [row for row in chunk if row is not None]
                self.bad_lines += len(chunk) - len(rows)
                yield rows
                progress.update(bar, completed=files[0].bytes_read)


@dataclass(frozen=True)
class _Encoder:
    """Sent to worker processes."""

    texts: tuple[Encodes, ...]

    def __call__(self, rows: list[tuple[str, ...]]) -> list[Encoded]:
        if not rows:  # all lines of a chunk were bad
            return [(np.empty(0, np.int32), np.empty(0, np.int64)) for _ in self.texts]
        return [text.encode_lines(lines) for text, lines in zip(self.texts, zip(*rows, strict=True), strict=True)]

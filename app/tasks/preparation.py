"""Parallel text becomes stores of ids, once; after that, opening them takes milliseconds."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.data.cache import cached, digest, key
from app.data.corpus import PairFiles, TextFile, read_pairs
from app.data.parallel import in_chunks, parallel_map
from app.data.store import Store, write_store
from app.tasks.text import CHUNK, Text

log = logging.getLogger(__name__)

VERSION = 1  # of the prepared directories; part of every cache key
Encoded = tuple[NDArray[np.int32], NDArray[np.int64]]


@dataclass(frozen=True)
class PreparedPairs:
    """All pairs of a split that could be read, several directories' one after another."""

    directory: Path
    source: Store
    target: Store
    pairs: list[int]  # how many each directory gave
    bad_lines: int  # pairs that on_bad_line=skip left out


def prepare_pairs(
    files: list[PairFiles], source: Text, target: Text, on_bad_line: str, num_workers: int, cache_dir: Path
) -> PreparedPairs:
    """Find the encoded pairs in the cache, or encode them with `num_workers` processes (0: one a core)."""
    name = key(
        version=VERSION,
        files=[[digest(path, cache_dir) for path in pair] for pair in files],
        text=[source.fingerprint(), target.fingerprint()],
        on_bad_line=on_bad_line,
    )

    def build(directory: Path) -> None:
        counts = {"pairs": [0] * len(files), "bad_lines": [0] * len(files)}
        with (
            write_store(directory / "source.store", len(source.vocabulary)) as add_source,
            write_store(directory / "target.store", len(target.vocabulary)) as add_target,
        ):
            for i, pair in enumerate(files):
                reader = _PairReader(pair, on_bad_line)
                for encoded in parallel_map(_PairEncoder(source, target), reader.chunks(), num_workers):
                    add_source(*encoded[0])
                    add_target(*encoded[1])
                    counts["pairs"][i] += len(encoded[0][1])
                counts["bad_lines"][i] = reader.bad_lines
        (directory / "counts.json").write_text(json.dumps(counts))

    directory = cached(cache_dir / f"pairs-{name}", build)
    counts = json.loads((directory / "counts.json").read_text())
    stores = (Store(directory / "source.store"), Store(directory / "target.store"))
    return PreparedPairs(directory, *stores, counts["pairs"], sum(counts["bad_lines"]))


class _PairReader:
    """The pairs of two files in chunks, with a progress bar on a terminal's standard error."""

    def __init__(self, files: PairFiles, on_bad_line: str):
        self._files, self._on_bad_line = files, on_bad_line
        self.bad_lines = 0

    def chunks(self) -> Iterator[list[tuple[str, str]]]:
        source, target = (TextFile(path, self._on_bad_line) for path in self._files)
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(f"encoding {source.path.name}", total=source.path.stat().st_size)
            for chunk in in_chunks(read_pairs(source, target), CHUNK):
                pairs = [pair for pair in chunk if pair is not None]
                self.bad_lines += len(chunk) - len(pairs)
                if pairs:
                    yield pairs
                progress.update(bar, completed=source.bytes_read)


@dataclass(frozen=True)
class _PairEncoder:
    """Sent to worker processes."""

    source: Text
    target: Text

    def __call__(self, pairs: list[tuple[str, str]]) -> tuple[Encoded, Encoded]:
        sources, targets = zip(*pairs)
        return self.source.encode_lines(sources), self.target.encode_lines(targets)

"""A corpus that several jobs encode, a share each, into one store.

Job k of n reads the text whole, which is quick, and encodes every n-th chunk of lines, which is not. Who finds all
shares there puts them together, in the order of the lines: the store is the one that a single job would have written.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from app.data.cache import cached
from app.data.store import Store, write_store
from app.errors import DataError
from app.interfaces import Shard

ALONE = Shard(0, 1)
COUNTS = "counts.json"
Item = TypeVar("Item")

_share: ContextVar[Shard] = ContextVar("share", default=ALONE)


class MissingSharesError(DataError):
    """This job's share is encoded, and others are not yet."""


@contextmanager
def encoding(share: Shard) -> Iterator[None]:
    """Inside, what is not in the cache is encoded by `share` only; MissingSharesError is raised until all have been."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def this_share() -> Shard:
    return _share.get()


def of_share(chunks: Iterable[Item], share: Shard) -> Iterator[Item]:
    """The chunks that a share encodes."""
    return (chunk for number, chunk in enumerate(chunks) if number % share.world_size == share.rank)


def directory_of(rows: Path, share: Shard) -> Path:
    """Where a share waits for the others, beside the rows that they will be."""
    return rows.with_name(f"{rows.name}.share-{share.rank + 1}-of-{share.world_size}")


def join(rows: Path, sides: Sequence[tuple[str, int]], world_size: int) -> Path:
    """Put the shares together as `rows`, with constant memory. `sides`: name and vocabulary size of each store.

    Raises MissingSharesError where shares are not there yet.
    """
    parts = [directory_of(rows, Shard(rank, world_size)) for rank in range(world_size)]
    missing = [part for part in parts if not part.is_dir()]
    if missing and not rows.is_dir():
        raise MissingSharesError(
            f"{len(missing)} of {world_size} shares are not there yet; run app.preprocess for each share"
        )

    def build(directory: Path) -> None:
        counts = [json.loads((part / COUNTS).read_text()) for part in parts]
        order = list(chunk_order([count["chunks"] for count in counts]))
        for side, size in sides:
            stores = [Store(part / f"{side}.store") for part in parts]
            at = [0] * world_size
            with write_store(directory / f"{side}.store", size) as add:
                for rank, length in order:
                    store, start = stores[rank], at[rank]
                    at[rank] = start + length
                    offsets = store.offsets[start : start + length + 1]
                    add(store.ids[offsets[0] : offsets[-1]], offsets[1:] - offsets[:-1])
        total = [[sum(chunks) for chunks in count["chunks"]] for count in counts]
        whole = {"rows": [sum(rows) for rows in zip(*total)]}
        whole["bad_lines"] = [sum(bad) for bad in zip(*(count["bad_lines"] for count in counts))]
        (directory / COUNTS).write_text(json.dumps(whole))

    cached(rows, build)
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    return rows


def chunk_order(chunks: Sequence[Sequence[Sequence[int]]]) -> Iterator[tuple[int, int]]:
    """(rank, rows) of every chunk, in the order of the text. `chunks[rank][file]`: rows of that share's chunks."""
    for per_file in zip(*chunks):
        for number in range(sum(map(len, per_file))):
            rank = number % len(per_file)
            yield rank, per_file[rank][number // len(per_file)]

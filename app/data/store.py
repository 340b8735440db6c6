"""Encoded sentences in one flat file, read through the page cache: opening takes no time and no memory.

Layout, little-endian: magic (8 bytes), version and bytes per id (uint32 each), rows and ids (uint64 each); the ids of
all rows one after another; zeros up to a multiple of 8; rows + 1 offsets (int64), counted in ids.
"""

import copy
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.data.unmapped import Unmapped, mapped
from app.errors import DataError

MAGIC = b"seqwstor"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ")

Ids = NDArray[np.int64]
Take = Callable[[NDArray[Any], Ids], NDArray[Any]]  # elements of an array by their places
AddRows = Callable[[NDArray[np.integer], NDArray[np.integer]], None]


def id_type(vocabulary_size: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned type that holds every id."""
    return np.min_scalar_type(max(0, vocabulary_size - 1))


@contextmanager
def write_store(path: Path, vocabulary_size: int) -> Iterator[AddRows]:
    """`with write_store(...) as add: add(ids, lengths)`: one pass, constant memory, valid only after a clean exit.

    `ids` are those of several rows in turn, `lengths` says how many belong to each. Plain buffered writes: a full disk
    is an OSError here, where a memory map would kill the process (SIGBUS).
    """
    dtype = id_type(vocabulary_size).newbyteorder("<")
    rows = count = 0

    with path.open("wb") as file, tempfile.TemporaryFile(dir=path.parent) as offsets:
        file.write(bytes(HEADER.size))
        offsets.write(bytes(8))

        def add(ids: NDArray[np.integer], lengths: NDArray[np.integer]) -> None:
            nonlocal rows, count
            file.write(ids.astype(dtype).tobytes())
            offsets.write((count + np.cumsum(lengths, dtype="<i8")).tobytes())
            rows += len(lengths)
            count += len(ids)

        yield add
        file.write(bytes(-(count * dtype.itemsize) % 8))
        offsets.seek(0)
        shutil.copyfileobj(offsets, file)
        file.seek(0)
        file.write(HEADER.pack(MAGIC, VERSION, dtype.itemsize, rows, count))


class Store:
    """Rows of ids. `DataError` where the file is not what its header says."""

    def __init__(self, path: Path, take: Take = mapped):
        self.path, self.take = path, take
        self._rows, self._count, itemsize = self._read_header()
        self._dtype: np.dtype[np.integer] = np.dtype(f"<u{itemsize}")

    @cached_property
    def ids(self) -> NDArray[np.integer]:
        """Of all rows, one after another."""
        dtype, count = self._dtype, self._count
        return np.memmap(self.path, dtype, "r", HEADER.size, (count,)) if count else np.empty(0, dtype)

    @cached_property
    def offsets(self) -> Ids:
        """[rows + 1] where each row starts, and the end, counted in ids."""
        size = self._count * self._dtype.itemsize
        return np.memmap(self.path, "<i8", "r", HEADER.size + size + -size % 8, (self._rows + 1,))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file; its content is not sent."""
        return type(self), (self.path, self.take)

    @property
    def nbytes(self) -> int:
        """What all rows would take if they were mapped."""
        return self._count * self._dtype.itemsize + 8 * self._rows

    def unmapped(self) -> Self:
        """The same rows; what is asked of them by row numbers is read, see `app.data.unmapped`."""
        read = copy.copy(self)
        read.take = Unmapped()
        return read

    def _read_header(self) -> tuple[int, int, int]:
        try:
            with self.path.open("rb") as file:
                header = file.read(HEADER.size)
                size = file.seek(0, 2)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); {self._mend}") from None
        if len(header) < HEADER.size or header[:8] != MAGIC:
            raise DataError(f"{self.path}: not a store of encoded sentences; {self._mend}")
        _, version, itemsize, rows, count = HEADER.unpack(header)
        if version != VERSION or itemsize not in (1, 2, 4, 8):
            raise DataError(f"{self.path}: store version {version}, this program reads {VERSION}; {self._mend}")
        expected = HEADER.size + count * itemsize + -(count * itemsize) % 8 + (rows + 1) * 8
        if size != expected:
            raise DataError(f"{self.path}: has {size} bytes where its header says {expected}; {self._mend}")
        return rows, count, itemsize

    @property
    def _mend(self) -> str:
        return f"remove {self.path.parent} and prepare the data again"

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Ids:
        """The ids of one row."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]].astype(np.int64)

    @property
    def lengths(self) -> Ids:
        """[rows] ids in each row."""
        return np.diff(self.offsets)

    def bounds(self, rows: Ids) -> tuple[Ids, Ids]:
        """[B] row numbers -> where each row starts and ends, [B] twice, counted in ids; no other row is looked at."""
        both = self.take(self.offsets, np.stack([rows, rows + 1], axis=1).ravel())
        return both[0::2], both[1::2]

    def rows_at(self, places: Ids) -> Ids:
        """[B] places in `ids` -> the rows that stand there."""
        if self.take is mapped:
            return np.searchsorted(self.offsets, places, side="right") - 1
        first, end = np.zeros_like(places), np.full_like(places, len(self))
        while (end - first > 1).any():
            middle = (first + end) // 2
            is_before = self.bounds(middle)[0] <= places
            first, end = np.where(is_before, middle, first), np.where(is_before, end, middle)
        return first

    def lengths_of(self, rows: Ids) -> Ids:
        """[B] row numbers -> [B] ids in each."""
        starts, ends = self.bounds(rows)
        return ends - starts

    def lengths_between(self, first: int, end: int) -> Ids:
        """[end - first] ids in each row from `first` to before `end`."""
        return np.diff(self.take(self.offsets, np.arange(first, end + 1)))

    def pieces(self, starts: Ids, lengths: Ids) -> NDArray[np.integer]:
        """The ids of rows that start at `starts` [B], all of one row behind all of another."""
        before = np.cumsum(lengths) - lengths
        return self.take(self.ids, np.repeat(starts - before, lengths) + np.arange(lengths.sum()))

    def padded(self, rows: Ids, pad: int) -> tuple[Ids, Ids]:
        """[B] row numbers -> ids [B, L], `pad` after each row's end, and lengths [B]."""
        starts, ends = self.bounds(rows)
        lengths = ends - starts
        inside = np.arange(lengths.max(initial=0)) < lengths[:, None]  # [B, L]
        padded = np.full(inside.shape, pad, dtype=np.int64)
        padded[inside] = self.pieces(starts, lengths)
        return padded, lengths

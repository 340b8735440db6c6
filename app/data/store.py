"""Encoded sentences in one flat file, read through the page cache: opening takes no time and no memory.

Layout, little-endian: magic (8 bytes), version and bytes per id (uint32 each), rows and ids (uint64 each); the ids of
all rows one after another; zeros up to a multiple of 8; rows + 1 offsets (int64), counted in ids.
"""

import mmap
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import DataError

MAGIC = b"seqwstor"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ")

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

    def __init__(self, path: Path):
        self.path = path
        rows, count, itemsize = self._read_header()
        dtype = np.dtype(f"<u{itemsize}")
        self.ids = (
            np.memmap(path, dtype=dtype, mode="r", offset=HEADER.size, shape=(count,)) if count else np.empty(0, dtype)
        )
        start = HEADER.size + count * itemsize + -(count * itemsize) % 8
        self.offsets: NDArray[np.int64] = np.memmap(path, dtype="<i8", mode="r", offset=start, shape=(rows + 1,))

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        """Another process opens the file; its content is not sent."""
        return Store, (self.path,)

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
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int64]:
        """The ids of one row."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]].astype(np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[rows] ids in each row."""
        return np.diff(self.offsets)

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[B] row numbers -> [B] ids in each; no other row is looked at."""
        lengths: NDArray[np.int64] = self.offsets[rows + 1] - self.offsets[rows]
        return np.asarray(lengths)

    def forget(self) -> None:
        """Give the pages that were looked at back to the kernel's cache of files, from where they come when needed."""
        for array in (self.ids, self.offsets):
            if isinstance(array.base, mmap.mmap):
                array.base.madvise(mmap.MADV_DONTNEED)

    def padded(self, rows: NDArray[np.int64], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[B] row numbers -> ids [B, L], `pad` after each row's end, and lengths [B]."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        columns = np.arange(lengths.max(initial=0))
        inside = columns < lengths[:, None]  # [B, L]
        padded = np.full(inside.shape, pad, dtype=np.int64)
        padded[inside] = self.ids[(starts[:, None] + columns)[inside]]
        return padded, lengths

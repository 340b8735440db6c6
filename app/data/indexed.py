"""fairseq's binarised data, read in place: `PREFIX.idx` says where in `PREFIX.bin` the ids of each sentence stand.

The index, little-endian: magic (9 bytes), version (uint64), code of the ids' type (uint8), number of sentences N
(uint64); N sizes in ids (int32); N places in the `.bin`, in bytes (int64). The `.bin` is the ids, nothing else.
"""

import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.store import AddRows, Ids, Store, Take
from app.data.unmapped import mapped
from app.errors import DataError

SUFFIX = ".idx"
MAGIC, OLD_MAGIC = b"MMIDIDX\x00\x00", b"TNTIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQ")
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}  # code -> type of an id
CHUNK = 1 << 20  # ids or rows that are looked at together


class IndexedStore(Store):
    """The rows of one `.idx` and its `.bin`. `DataError` names the file, what was expected and what was found.

    `vocabulary_size` is what every id must be smaller than; that is looked at in one pass over both files, with
    constant memory. None: it was before.
    """

    def __init__(self, path: Path, vocabulary_size: int | None, take: Take = mapped):
        self.path, self.take = path, take
        self._rows, self._dtype = self._read_index()
        self._sizes: NDArray[np.int32] = self._of_index("<i4", HEADER.size)
        self._places: Ids = self._of_index("<i8", HEADER.size + 4 * self._rows)
        self._count = int(self._places[-1]) // self._dtype.itemsize + int(self._sizes[-1]) if self._rows else 0
        found, expected = self._bytes_of_ids(), self._count * self._dtype.itemsize
        if found != expected:
            raise DataError(f"{self._bin}: has {found} bytes where {path.name} says {expected}; {self._mend}")
        if vocabulary_size is not None:
            self._check_places()
            self._check_ids(vocabulary_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return IndexedStore, (self.path, None, self.take)

    @cached_property
    def ids(self) -> NDArray[np.integer]:
        dtype, count = self._dtype, self._count
        return np.memmap(self._bin, dtype, "r", 0, (count,)) if count else np.empty(0, dtype)

    @cached_property
    def offsets(self) -> Ids:
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self._sizes, dtype=np.int64)])

    def bounds(self, rows: Ids) -> tuple[Ids, Ids]:
        starts = self.take(self._places, rows) // self._dtype.itemsize
        return starts, starts + self.take(self._sizes, rows)

    def lengths_between(self, first: int, end: int) -> Ids:
        return self.take(self._sizes, np.arange(first, end)).astype(np.int64)

    def _read_index(self) -> tuple[int, np.dtype[np.integer]]:
        """The number of rows, and the type of their ids."""
        try:
            with self.path.open("rb") as file:
                header, found = file.read(HEADER.size), file.seek(0, 2)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); {self._mend}") from None
        if header.startswith(OLD_MAGIC):
            raise DataError(f"{self.path}: of fairseq's older kinds, cached or lazy; binarise again, as mmap")
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            raise DataError(f"{self.path}: starts with {header[:9]!r} instead of {MAGIC!r}; {self._mend}")
        _, version, code, rows = HEADER.unpack(header)
        if version != VERSION or code not in TYPES:
            types = ", ".join(map(str, TYPES))
            kind = f"version {version} with ids of type {code}"
            raise DataError(f"{self.path}: {kind}; read are version {VERSION} and types {types}")
        if found != (expected := HEADER.size + 12 * rows):
            raise DataError(f"{self.path}: has {found} bytes where {rows} sentences take {expected}; {self._mend}")
        return rows, np.dtype(TYPES[code])

    def _of_index(self, dtype: str, start: int) -> NDArray[Any]:
        rows = self._rows
        return np.memmap(self.path, dtype, "r", start, (rows,)) if rows else np.empty(0, dtype)

    @property
    def _bin(self) -> Path:
        return self.path.with_suffix(".bin")

    def _bytes_of_ids(self) -> int:
        if not self._bin.is_file():
            raise DataError(f"{self._bin}: is missing beside {self.path.name}; {self._mend}")
        return self._bin.stat().st_size

    def _check_places(self) -> None:
        index, rows, end = self.path, self._rows, 0
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            sizes = np.fromfile(index, "<i4", count, offset=HEADER.size + 4 * start)
            places = np.fromfile(index, "<i8", count, offset=HEADER.size + 4 * rows + 8 * start)
            ends = end + np.cumsum(sizes, dtype=np.int64)
            if sizes.min() < 0 or not np.array_equal(places, (ends - sizes) * self._dtype.itemsize):
                raise DataError(f"{index}: its sentences do not stand one after another in the .bin; {self._mend}")
            end = int(ends[-1])

    def _check_ids(self, vocabulary_size: int) -> None:
        for start in range(0, self._count, CHUNK):
            chunk = np.fromfile(self._bin, self._dtype, CHUNK, offset=start * self._dtype.itemsize)
            if chunk.min() < 0 or chunk.max() >= vocabulary_size:
                worst = chunk.min() if chunk.min() < 0 else chunk.max()
                fault = f"has id {worst} where the vocabulary has {vocabulary_size} entries"
                raise DataError(f"{self._bin}: {fault}; give the dictionary that it was made with")

    @property
    def _mend(self) -> str:
        return "copy both files again"


def id_code(vocabulary_size: int) -> int:
    """The code of the type that fairseq gives ids of a vocabulary of this size."""
    return 8 if vocabulary_size < 65500 else 9 if vocabulary_size < 4294967295 else 5


@contextmanager
def write_indexed(path: Path, vocabulary_size: int) -> Iterator[AddRows]:
    """`with write_indexed(PREFIX.idx, V) as add: add(ids, lengths)`, as `store.write_store`: one pass, little memory.

    The index is written last: without it, nothing takes an unfinished `.bin` for data.
    """
    code = id_code(vocabulary_size)
    dtype = np.dtype(TYPES[code])
    rows = count = 0
    with (
        path.with_suffix(".bin").open("wb") as file,
        tempfile.TemporaryFile(dir=path.parent) as sizes,
        tempfile.TemporaryFile(dir=path.parent) as places,
    ):

        def add(ids: NDArray[np.integer], lengths: NDArray[np.integer]) -> None:
            nonlocal rows, count
            file.write(ids.astype(dtype).tobytes())
            sizes.write(lengths.astype("<i4").tobytes())
            ends = count + np.cumsum(lengths, dtype="<i8")
            places.write(((ends - lengths) * dtype.itemsize).astype("<i8").tobytes())
            rows, count = rows + len(lengths), count + len(ids)

        yield add
        with path.open("wb") as index:
            index.write(HEADER.pack(MAGIC, VERSION, code, rows))
            for part in (sizes, places):
                part.seek(0)
                shutil.copyfileobj(part, index)

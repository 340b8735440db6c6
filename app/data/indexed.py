"""fairseq's binarised data, read in place: `PREFIX.idx` says where in `PREFIX.bin` the ids of each sentence stand.

The index, little-endian: magic (9 bytes), version (uint64), code of the ids' type (uint8), number of sentences N
(uint64); N sizes in ids (int32); N places in the `.bin`, in bytes (int64). The `.bin` is the ids, nothing else.
"""

import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.data.store import AddRows, Store
from app.errors import DataError

SUFFIX = ".idx"
MAGIC, OLD_MAGIC = b"MMIDIDX\x00\x00", b"TNTIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQ")
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}  # code -> type of an id
CHUNK = 1 << 24  # ids that are looked at together


class IndexedStore(Store):
    """The rows of one `.idx` and its `.bin`. `DataError` names the file, what was expected and what was found.

    `vocabulary_size` is what every id must be smaller than; looking at them all reads the file once, in order.
    """

    def __init__(self, path: Path, vocabulary_size: int):
        self.path = path
        dtype, sizes, places = self._read_index()
        self.offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)])
        if len(sizes) and (sizes.min() < 0 or not np.array_equal(places, self.offsets[:-1] * dtype.itemsize)):
            raise DataError(f"{path}: its sentences do not stand one after another in the .bin; {self._mend}")
        self.ids = self._map_ids(dtype, int(self.offsets[-1]))
        self._check_ids(vocabulary_size)

    def _read_index(self) -> tuple[np.dtype[np.integer], NDArray[np.int32], NDArray[np.int64]]:
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
        dtype: np.dtype[np.integer] = np.dtype(TYPES[code])
        sizes = np.fromfile(self.path, dtype="<i4", count=rows, offset=HEADER.size)
        places = np.fromfile(self.path, dtype="<i8", count=rows, offset=HEADER.size + 4 * rows)
        return dtype, sizes, places

    def _map_ids(self, dtype: np.dtype[np.integer], count: int) -> NDArray[np.integer]:
        path = self.path.with_suffix(".bin")
        found = path.stat().st_size if path.is_file() else None
        if found is None:
            raise DataError(f"{path}: is missing beside {self.path.name}; {self._mend}")
        if found != (expected := count * dtype.itemsize):
            raise DataError(f"{path}: has {found} bytes where {self.path.name} says {expected}; {self._mend}")
        return np.memmap(path, dtype=dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)

    def _check_ids(self, vocabulary_size: int) -> None:
        for start in range(0, len(self.ids), CHUNK):
            chunk = self.ids[start : start + CHUNK]
            if chunk.min() < 0 or chunk.max() >= vocabulary_size:
                worst = chunk.min() if chunk.min() < 0 else chunk.max()
                fault = f"has id {worst} where the vocabulary has {vocabulary_size} entries"
                raise DataError(f"{self.path.with_suffix('.bin')}: {fault}; give the dictionary that it was made with")

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

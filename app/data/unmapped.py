"""Elements of mapped arrays, read from their files: for corpora that are larger than what a process should map.

A page of a mapped file that was looked at counts as the process's memory, and the kernel maps many pages around it:
rows from all over a large corpus come to gigabytes. What is read takes microseconds a row, and leaves nothing.
"""

import os
from io import FileIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import DataError


def mapped(array: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """Looked up through the map."""
    return np.asarray(array[places])


class Unmapped:
    """Called as `mapped` is. Files stay open as long as this object lives; another process opens its own."""

    def __init__(self) -> None:
        self._files: dict[str, FileIO] = {}

    def __reduce__(self) -> tuple[type["Unmapped"], tuple[()]]:
        return Unmapped, ()

    def __call__(self, array: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
        """Neighbours that are asked for one after another are read together. Raises DataError where the file ends."""
        if not isinstance(array, np.memmap) or not len(places):
            return mapped(array, places)
        steps = np.diff(places, prepend=-2)
        begins = np.flatnonzero((steps < 0) | (steps > 1))  # of each run of neighbours
        firsts, lasts = places[begins], places[np.append(begins[1:], len(places)) - 1]
        counts = lasts - firsts + 1
        content = self._read(array, firsts, counts)
        if len(content) == len(places):  # nothing was asked for twice
            return content
        before = np.cumsum(counts) - counts  # elements of the runs that were read before each
        found: NDArray[Any] = content[places - np.repeat(firsts - before, np.diff(begins, append=len(places)))]
        return found

    def _read(self, array: Any, firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[Any]:
        """`counts` elements behind each of `firsts`, one run after another."""
        name, size = str(array.filename), array.dtype.itemsize
        file = self._files.get(name) or self._files.setdefault(name, FileIO(name))  # of two threads the first one's
        sizes, starts = (counts * size).tolist(), (array.offset + firsts * size).tolist()
        number = file.fileno()
        content = b"".join([os.pread(number, size, start) for size, start in zip(sizes, starts, strict=True)])
        if len(content) != sum(sizes):
            raise DataError(f"{name}: became shorter while it was read; prepare the data again")
        return np.frombuffer(content, array.dtype)

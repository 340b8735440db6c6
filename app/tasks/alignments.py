"""Word alignments of parallel text: files `SPLIT.SOURCE-TARGET.align[.gz]`, as fairseq and aligners write them.

Line n belongs to pair n: `0-0 1-2` says that piece 0 of the source belongs to piece 0 of the target, 1 to 2. Pieces are
those that the tokenizer makes: with `tokenizer=word` they are words. A pair's line may be empty.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.data.corpus import find_file, is_binarised
from app.data.store import Store
from app.errors import DataError
from app.tasks.corpora import Corpus

ALIGN = "align"
LONGEST = 1 << 16  # no piece stands beyond this
CHUNK = 1 << 16  # pairs that are checked together
POINT = re.compile(r"(\d+)-(\d+)")


class Alignments:
    """Encodes lines of alignments as `app.tasks.text.Text` encodes text: s, t, s, t, ... of every line."""

    vocabulary: Sequence[int] = range(LONGEST)  # what a store has room for

    def encode_lines(self, lines: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The numbers of all lines in turn, and how many belong to each. `DataError` for what is no alignment."""
        rows = [self._encode(line) for line in lines]
        return np.concatenate(rows), np.array([len(row) for row in rows], dtype=np.int64)

    def _encode(self, line: str) -> NDArray[np.int32]:
        points = [POINT.fullmatch(point) for point in line.split()]
        numbers = [int(number) for point in points if point for number in point.groups()]
        if not all(points) or any(number >= LONGEST for number in numbers):
            raise DataError(f"SPLIT.SOURCE-TARGET.{ALIGN}: {line[:60]!r} is not `0-0 1-2 ...`; mend the line")
        return np.array(numbers, dtype=np.int32)

    def fingerprint(self) -> str:
        """The format's name in cache keys."""
        return "alignments-1"


def find_alignments(corpora: list[Corpus], files: list[tuple[Path, ...]], split: str, pair: str) -> list[Path] | None:
    """The alignments of every directory that has the split; None where none has any.

    Validation may go without. Raises `DataError` where some directories have them and others do not.
    """
    directories = {path.parent for path, *_ in files}
    if named := [directory for directory in directories if is_binarised(directory)]:
        raise DataError(f"{named[0]}: alignments are read beside text, not beside binarised data; give text")
    found = [find_file(path, f"{split}.{pair}", ALIGN) for path, _ in corpora if path in directories]
    paths = [path for path in found if path is not None]
    if paths and len(paths) < len(found):
        raise DataError(f"{split}.{pair}.{ALIGN}: stands in {len(paths)} of {len(found)} directories; give it in all")
    return paths or None


def check_alignments(stores: tuple[Store, ...], name: str) -> None:
    """Raise `DataError` for the first pair whose alignment names a piece that it does not have."""
    *sides, alignments = (store.unmapped() for store in stores)
    for first in range(0, len(alignments), CHUNK):
        end = min(first + CHUNK, len(alignments))
        counts = alignments.lengths_between(first, end)
        start, _ = alignments.bounds(np.array([first]))
        points = alignments.pieces(start, counts.sum(keepdims=True)).astype(np.int64)
        rows = np.repeat(np.arange(end - first), counts // 2)
        for store, pieces, place in zip(sides, (points[0::2], points[1::2]), ("source", "target"), strict=True):
            lengths = store.lengths_between(first, end) - 1  # without eos
            beyond = np.flatnonzero(pieces >= lengths[rows])
            if len(beyond):
                row, piece = int(rows[beyond[0]]), int(pieces[beyond[0]])
                raise DataError(
                    f"{name}: pair {first + row + 1} (bad lines not counted) aligns {place} piece {piece}, and has "
                    f"{lengths[row]}; align the pieces of this tokenizer, or use tokenizer=word"
                )

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
    source, target, alignments = stores
    pairs = np.repeat(np.arange(len(alignments)), alignments.lengths // 2)
    for side, (store, place) in enumerate(((source, "source"), (target, "target"))):
        pieces = alignments.ids[side::2].astype(np.int64)
        beyond = np.flatnonzero(pieces >= store.lengths[pairs] - 1)
        if len(beyond):
            pair, piece = int(pairs[beyond[0]]), int(pieces[beyond[0]])
            raise DataError(
                f"{name}: pair {pair + 1} (bad lines not counted) aligns {place} piece {piece}, and has "
                f"{store.lengths[pair] - 1}; align the pieces of this tokenizer, or use tokenizer=word"
            )

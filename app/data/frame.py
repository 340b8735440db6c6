"""What stands around the pieces of a sentence and of its translation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.data.vocabulary import Vocabulary

Ids = NDArray[np.int64]
Symbols = tuple[int, ...]

EOS = (Vocabulary.eos,)


@dataclass(frozen=True)
class Frame:
    """Symbols in front of and behind the pieces. The decoder starts from `decoder_start`; outputs end as targets do.

    That is an ordinary sentence's frame, unless a task says languages by symbols (mBART: Liu et al., 2020, sec. 2).
    """

    source_start: Symbols = ()
    source_end: Symbols = EOS
    target_start: Symbols = ()
    target_end: Symbols = EOS
    decoder_start: int = Vocabulary.eos

    @property
    def source_extra(self) -> int:
        """Positions that a source takes beyond its pieces and one eos."""
        return len(self.source_start) + len(self.source_end) - 1

    @property
    def target_extra(self) -> int:
        """Positions that a target takes beyond its pieces and one eos."""
        return len(self.target_start) + len(self.target_end) - 1

    def source(self, rows: Ids, lengths: Ids) -> tuple[Ids, Ids]:
        """[B, S] pieces, eos, padding; [B] -> the same, framed as sources."""
        return framed(rows, lengths, self.source_start, self.source_end)

    def target(self, rows: Ids, lengths: Ids) -> tuple[Ids, Ids]:
        """[B, T] pieces, eos, padding; [B] -> the same, framed as targets."""
        return framed(rows, lengths, self.target_start, self.target_end)


PLAIN = Frame()


def framed(rows: Ids, lengths: Ids, start: Symbols, end: Symbols) -> tuple[Ids, Ids]:
    """[B, L], [B] -> rows with `start` in front and `end` in eos's place, and their lengths."""
    if not start and end == EOS:
        return rows, lengths
    out = np.full((len(rows), rows.shape[1] + len(start) + len(end) - 1), Vocabulary.pad, dtype=rows.dtype)
    out[:, : len(start)] = start
    out[:, len(start) : len(start) + rows.shape[1]] = rows
    ends = lengths - 1 + len(start)
    for place, symbol in enumerate(end):
        out[np.arange(len(rows)), ends + place] = symbol
    return out, lengths + len(start) + len(end) - 1

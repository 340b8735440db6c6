"""Which rows of two stores are used as pairs, asked of any rows at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.data.large import RowLengths
from app.data.store import Store

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

CHUNK = 1 << 16  # rows that are looked at together: what a processor's cache holds


@dataclass(frozen=True)
class Tally:
    """What there is in all rows."""

    count: int  # rows that are used
    longest: list[int]  # source and target ids of the longest that is used
    total: list[int]  # source and target ids of all that are used
    left_out: list[int]  # rows of each of `PairRows.faults`


@dataclass(frozen=True)
class PairRows:
    """The rows of two stores, each with eos at its end."""

    source: Store
    target: Store
    max_source: int  # most ids of a row that is used
    max_target: int

    def faults(self, source: Ids, target: Ids) -> tuple[Mask, Mask, Mask]:
        """[B] lengths -> [B] what forbids a row: empty on one side, else too long a source, else too long a target."""
        empty = (source == 1) | (target == 1)  # eos alone
        long_source = ~empty & (source > self.max_source)
        return empty, long_source, ~empty & ~long_source & (target > self.max_target)

    def used(self, rows: Ids) -> Mask:
        """[B] row numbers -> [B] which of them are used."""
        source, target = self.source.lengths_of(rows), self.target.lengths_of(rows)
        empty, long_source, long_target = self.faults(source, target)
        return ~(empty | long_source | long_target)

    def tally(self) -> Tally:
        """One pass over the lengths, with constant memory."""
        whole = Tally(0, [0, 0], [0, 0], [0, 0, 0])
        for start in range(0, len(self.source), CHUNK):
            end = min(start + CHUNK, len(self.source))
            lengths = np.stack([store.lengths_between(start, end) for store in (self.source, self.target)])
            faults = self.faults(*lengths)
            is_used = ~np.logical_or.reduce(faults)
            kept = lengths * is_used  # an element that is taken out costs ten times as much
            whole = Tally(
                whole.count + int(np.count_nonzero(is_used)),
                np.maximum(whole.longest, kept.max(axis=1, initial=0)).tolist(),
                (whole.total + kept.sum(axis=1)).tolist(),
                [before + int(np.count_nonzero(fault)) for before, fault in zip(whole.left_out, faults)],
            )
        return whole


@dataclass(frozen=True)
class EveryRow:
    """The row of each sample, where all rows have their own numbers and those that are left out are not asked for."""

    tally: Tally

    def __len__(self) -> int:
        """How many are used."""
        return self.tally.count

    def __getitem__(self, samples: Ids) -> Ids:
        return samples

    def lengths(self, store: Store, side: int) -> RowLengths:
        """Those of the source (side 0) or the target (1), which `store` holds."""
        return RowLengths(store, self.tally.count, self.tally.longest[side], self.tally.total[side])

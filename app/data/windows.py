"""The order in which an epoch sees the samples of a large data set, made a window at a time.

Nothing here grows with the data: what a window holds is computed from its number. Samples come in blocks of neighbours,
which are read together; the blocks of a window come from all over the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

PLACES = 1024  # blocks in a window
ROUNDS = 4  # of the Feistel network
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of the mixing function of SplitMix64 (Steele et al., 2014)


@dataclass(frozen=True)
class Span:
    """Samples that stand one after another and are seen equally often."""

    first: int  # sample number
    count: int
    weight: float  # how often an epoch of training sees each


class Windows:
    """Sample numbers by window: `windows[i]`, rising.

    A span of weight 2.5 is seen twice, and half of its blocks once more; which, is drawn anew for every epoch. Without
    `rng` samples keep their order. Windows are of about the same size, at most `window` samples.
    """

    def __init__(self, spans: Sequence[Span], window: int, rng: np.random.Generator | None):
        self._spans, self._block = spans, max(1, window // PLACES)
        self._blocks = np.array([-(-span.count // self._block) for span in spans], dtype=np.int64)
        draws = rng.random(len(spans)) if rng else np.full(len(spans), 0.5)
        wanted = self._blocks * np.array([span.weight for span in spans]) + draws
        self._starts = np.cumsum([0, *np.floor(wanted).astype(np.int64)])  # of each span's blocks, among the epoch's
        self._total = int(self._starts[-1])
        self._keys = rng.integers(1 << 63, size=ROUNDS, dtype=np.uint64) if rng else None
        self._count = max(1, -(-self._total // (window // self._block)))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Ids:
        first, end = (each * self._total // self._count for each in (number, number + 1))
        blocks = self._shuffled(np.arange(first, end), self._total)
        of_span = np.searchsorted(self._starts, blocks, side="right") - 1
        parts = [self._samples(span, blocks[of_span == span]) for span in np.unique(of_span)]
        return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))

    def _samples(self, number: int, blocks: Ids) -> Ids:
        """The samples of some of the epoch's blocks, all of one span."""
        span, count = self._spans[number], int(self._blocks[number])
        places = self._shuffled((blocks - self._starts[number]) % count, count)
        samples = (places[:, None] * self._block + np.arange(self._block)).ravel()
        return span.first + samples[samples < span.count]

    def _shuffled(self, numbers: Ids, count: int) -> Ids:
        return numbers if self._keys is None else permuted(numbers, count, self._keys)


def permuted(numbers: Ids, count: int, keys: NDArray[np.uint64]) -> Ids:
    """Each of `numbers`, all below `count`, in the place that a pseudo-random permutation of range(count) gives it.

    A Feistel network over the next power of four, and again until the result is below `count` (Black and Rogaway, 2002,
    "Ciphers with arbitrary finite domains"): no two numbers meet, and no table is kept.
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    found = numbers.astype(np.uint64)
    outside = np.ones(len(found), dtype=np.bool_)
    while outside.any():
        found[outside] = _feistel(found[outside], half, keys)
        outside = found >= count
    return found.astype(np.int64)


def _feistel(numbers: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of the numbers of 2 * `half` bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << half) | right


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers whose every bit depends on all bits of those given."""
    for multiplier in MULTIPLIERS:
        numbers = (numbers ^ (numbers >> np.uint64(31))) * np.uint64(multiplier)
    return numbers ^ (numbers >> np.uint64(31))

"""Encoded sentence pairs of one split, and which of them are used."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.data.store import Store


@dataclass(frozen=True)
class PairDataset:
    """Sample i is the pair in row `rows[i]` of both stores."""

    source: Store
    target: Store
    rows: NDArray[np.int64]  # [N] the pairs that are used
    weights: NDArray[np.float64]  # [N] how often a sample is seen in an epoch of training
    left_out: dict[str, int]  # reason: number of pairs that are not used

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source_lengths(self) -> NDArray[np.int64]:
        return self.source.lengths[self.rows]

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        return self.target.lengths[self.rows]

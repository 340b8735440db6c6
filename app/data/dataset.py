"""Encoded samples of one split, and which of them are used."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from app.data.batch import Batch
from app.data.store import Store
from app.data.vocabulary import Vocabulary


class Samples(Protocol):
    """What an epoch's batches are made of (`app.data.iterator`)."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """[N] how often a sample is seen in an epoch of training."""

    @property
    def source_lengths(self) -> NDArray[np.int64]:
        """[N] positions on the source's side, eos counted."""

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """[N] positions on the target's side."""

    def collate(self, samples: NDArray[np.int64]) -> Batch:
        """[B] sample numbers -> padded tensors."""


@runtime_checkable
class Redrawn(Protocol):
    """Samples that look different in every epoch: masked, or noised."""

    def in_epoch(self, epoch: int) -> Samples:
        """The samples as this epoch shows them, a pure function of its number; 0: as validation does."""


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

    def collate(self, samples: NDArray[np.int64]) -> Batch:
        """[B] sample numbers -> padded tensors."""
        rows = self.rows[samples]
        src_tokens, src_lengths = self.source.padded(rows, Vocabulary.pad)
        target, target_lengths = self.target.padded(rows, Vocabulary.pad)
        prev_output_tokens = np.full_like(target, Vocabulary.pad)
        inside = np.arange(1, target.shape[1]) < target_lengths[:, None]
        prev_output_tokens[:, 1:][inside] = target[:, :-1][inside]
        prev_output_tokens[:, 0] = Vocabulary.eos
        return Batch(
            ids=torch.from_numpy(samples),
            src_tokens=torch.from_numpy(src_tokens),
            src_lengths=torch.from_numpy(src_lengths),
            prev_output_tokens=torch.from_numpy(prev_output_tokens),
            target=torch.from_numpy(target),
            num_tokens=int(target_lengths.sum()),
        )

"""Encoded samples of one split, and which of them are used."""

from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from app.data.batch import AlignedBatch, Batch
from app.data.frame import PLAIN, Frame
from app.data.large import Lengths, PartNumbers, Weights
from app.data.pair_rows import EveryRow
from app.data.store import Store
from app.data.vocabulary import Vocabulary


class Samples(Protocol):
    """What an epoch's batches are made of (`app.data.iterator`), a window at a time where there are `LargeWeights`."""

    @property
    def weights(self) -> Weights:
        """[N] how often a sample is seen in an epoch of training."""

    @property
    def source_lengths(self) -> Lengths:
        """[N] positions on the source's side, eos counted."""

    @property
    def target_lengths(self) -> Lengths:
        """[N] positions on the target's side."""

    def collate(self, samples: NDArray[np.int64]) -> Batch:
        """[B] sample numbers -> padded tensors."""


@runtime_checkable
class Redrawn(Protocol):
    """Samples that look different in every epoch: masked, or noised."""

    def in_epoch(self, epoch: int) -> Samples:
        """The samples as this epoch shows them, a pure function of its number; 0: as validation does."""


@runtime_checkable
class Grouped(Protocol):
    """Samples of several kinds, which must not meet in a batch."""

    @property
    def groups(self) -> NDArray[np.int64] | PartNumbers:
        """[N] the kind of each sample."""


@dataclass(frozen=True)
class PairDataset:
    """Sample i is the pair in row `rows[i]` of both stores."""

    source: Store
    target: Store
    rows: NDArray[np.int64] | EveryRow  # [N] the pairs that are used
    weights: Weights  # [N] how often a sample is seen in an epoch of training
    left_out: dict[str, int]  # reason: number of pairs that are not used
    frame: Frame = PLAIN  # what stands around the rows' pieces
    alignments: Store | None = None  # rows of s, t, s, t, ...: source piece s and target piece t belong together

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source_lengths(self) -> Lengths:
        if isinstance(self.rows, EveryRow):
            return self.rows.lengths(self.source, 0) + self.frame.source_extra
        return self.source.lengths[self.rows] + self.frame.source_extra

    @property
    def target_lengths(self) -> Lengths:
        if isinstance(self.rows, EveryRow):
            return self.rows.lengths(self.target, 1) + self.frame.target_extra
        return self.target.lengths[self.rows] + self.frame.target_extra

    def collate(self, samples: NDArray[np.int64]) -> Batch:
        """[B] sample numbers -> padded tensors."""
        rows, pad = self.rows[samples], Vocabulary.pad
        src_tokens, src_lengths = self.frame.source(*self.source.padded(rows, pad))
        target, target_lengths = self.frame.target(*self.target.padded(rows, pad))
        prev_output_tokens = np.full_like(target, pad)
        inside = np.arange(1, target.shape[1]) < target_lengths[:, None]
        prev_output_tokens[:, 1:][inside] = target[:, :-1][inside]
        prev_output_tokens[:, 0] = self.frame.decoder_start
        batch = Batch(
            ids=torch.from_numpy(samples),
            src_tokens=torch.from_numpy(src_tokens),
            src_lengths=torch.from_numpy(src_lengths),
            prev_output_tokens=torch.from_numpy(prev_output_tokens),
            target=torch.from_numpy(target),
            num_tokens=int(target_lengths.sum()),
        )
        return batch if self.alignments is None else self._aligned(batch, self.alignments, rows)

    def _aligned(self, batch: Batch, store: Store, rows: NDArray[np.int64]) -> AlignedBatch:
        """The batch with its rows' alignments, in positions of its tensors."""
        first = len(self.frame.source_start), len(self.frame.target_start)
        numbers, lengths = store.padded(rows, 0)
        pairs = [row[:length].reshape(-1, 2) + first for row, length in zip(numbers, lengths)]
        width = batch.target.size(1)
        places = np.concatenate([pair + (0, width * i) for i, pair in enumerate(pairs)])
        _, each, counts = np.unique(places[:, 1], return_inverse=True, return_counts=True)
        return AlignedBatch(
            **{f.name: getattr(batch, f.name) for f in fields(Batch)},
            alignments=torch.from_numpy(places),
            align_weights=torch.from_numpy(1 / counts[each].astype(np.float32)),
        )

"""Several data sets as one, each with its share of an epoch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from app.data.batch import Batch
from app.data.dataset import Redrawn, Samples
from app.data.large import JoinedLengths, LargeLengths, LargeWeights, Lengths, PartNumbers, Weights

Ids = NDArray[np.int64]


class Part(Samples, Protocol):
    """One of several data sets."""

    @property
    def left_out(self) -> dict[str, int]:
        """Reason: number of samples that are not used."""


@dataclass
class GroupBatch(Batch):
    """A batch of one of several data sets."""

    group: str  # its name


@dataclass(frozen=True)
class GroupedDataset:
    """The samples of all `parts`, one part after another; no batch has samples of two parts.

    With n samples in a part it gets a share of an epoch that is proportional to n ** (1 / `temperature`)
    (Arivazhagan et al., 2019, sec. 4.2): 1 is what there is, and the larger, the more alike. An epoch stays as long.
    Either all parts are large (`app.data.large`) or none is.
    """

    parts: Mapping[str, Part]
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def _starts(self) -> Ids:
        return np.cumsum([0, *(len(part.weights) for part in self.parts.values())])

    @cached_property
    def groups(self) -> Ids | PartNumbers:
        """[N] the number of each sample's part."""
        if isinstance(self.weights, LargeWeights):
            return PartNumbers(self._starts)
        return np.repeat(np.arange(len(self.parts)), np.diff(self._starts))

    @cached_property
    def weights(self) -> Weights:
        own = [part.weights for part in self.parts.values()]
        sizes = np.array([weights.sum() for weights in own])
        shares = np.where(sizes > 0, sizes ** (1 / self.temperature), 0)
        factors = shares / shares.sum() * sizes.sum() / np.maximum(sizes, np.finfo(float).tiny)
        large = [weights for weights in own if isinstance(weights, LargeWeights)]
        if large:
            return LargeWeights.joined(large, factors.tolist(), PartNumbers(self._starts))
        arrays = [weights for weights in own if isinstance(weights, np.ndarray)]
        return np.concatenate([weights * factor for weights, factor in zip(arrays, factors, strict=True)])

    @property
    def left_out(self) -> dict[str, int]:
        """Reason: number of samples that no part uses."""
        total: Counter[str] = Counter()
        for part in self.parts.values():
            total.update(part.left_out)
        return dict(total)

    @cached_property
    def source_lengths(self) -> Lengths:
        return self._joined([part.source_lengths for part in self.parts.values()])

    @cached_property
    def target_lengths(self) -> Lengths:
        return self._joined([part.target_lengths for part in self.parts.values()])

    def _joined(self, lengths: list[Lengths]) -> Lengths:
        large = [part for part in lengths if isinstance(part, LargeLengths)]
        if large:
            return JoinedLengths(tuple(large), PartNumbers(self._starts))
        return np.concatenate([part for part in lengths if isinstance(part, np.ndarray)])

    def in_epoch(self, epoch: int) -> "GroupedDataset":
        """The parts as this epoch shows them."""
        shown = {name: part.in_epoch(epoch) if isinstance(part, Redrawn) else part for name, part in self.parts.items()}
        return replace(self, parts=cast(Mapping[str, Part], shown))

    def collate(self, samples: Ids) -> GroupBatch:
        """[B] sample numbers, all of one part -> its batch, with its name."""
        group, *others = np.unique(self.groups[samples]).tolist()
        assert not others, "a batch has samples of one group"
        name, part = list(self.parts.items())[group]
        batch = part.collate(samples - self._starts[group])
        own = {f.name: getattr(batch, f.name) for f in fields(Batch)}
        return GroupBatch(**{**own, "ids": torch.from_numpy(samples)}, group=name)

"""What data sets have in place of arrays of N numbers where N is too large: numbers that are made when asked for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.data.store import Store
from app.data.windows import Span

Ids = NDArray[np.int64]


class LargeLengths(ABC):
    """Positions of samples, as an array has them. Whole sums and the largest one are known, of those that are used."""

    @abstractmethod
    def __getitem__(self, samples: Ids) -> Ids:
        """[B] sample numbers -> [B] positions."""

    @abstractmethod
    def __add__(self, more: int) -> "LargeLengths":
        """The same with `more` positions in each sample."""

    @abstractmethod
    def max(self, initial: int = 0) -> int: ...

    @abstractmethod
    def sum(self) -> int: ...


Lengths = Ids | LargeLengths  # [N] positions of each sample


@dataclass(frozen=True)
class RowLengths(LargeLengths):
    """Of the rows of a store."""

    store: Store
    count: int  # rows that are used
    longest: int  # the largest length of these, without `extra`
    total: int  # the sum of their lengths, without `extra`
    extra: int = 0  # positions beyond the row's ids

    def __getitem__(self, samples: Ids) -> Ids:
        return self.store.lengths_of(samples) + self.extra

    def __add__(self, more: int) -> "RowLengths":
        return replace(self, extra=self.extra + more)

    def max(self, initial: int = 0) -> int:
        return max(initial, self.longest + self.extra)

    def sum(self) -> int:
        return self.total + self.count * self.extra


@dataclass(frozen=True)
class LargeWeights:
    """How often samples are seen in an epoch of training: those of a span equally often, and some not at all."""

    spans: tuple[Span, ...]  # of all samples, one after another
    used: Callable[[Ids], NDArray[np.bool_]]  # [B] sample numbers -> which of them there are

    def __len__(self) -> int:
        """How many sample numbers there are, those that are not used among them."""
        return sum(span.count for span in self.spans)

    def sum(self) -> float:
        return sum(span.weight * span.count for span in self.spans)

    @classmethod
    def joined(
        cls, parts: Sequence["LargeWeights"], factors: Sequence[float], numbers: "PartNumbers"
    ) -> "LargeWeights":
        """Of several data sets, one after another, each seen `factor` times as often."""
        spans = [
            Span(int(start) + span.first, span.count, span.weight * factor)
            for start, part, factor in zip(numbers.starts, parts, factors)
            for span in part.spans
        ]
        return cls(tuple(spans), _UsedOfParts(tuple(part.used for part in parts), numbers))


Weights = NDArray[np.float64] | LargeWeights  # [N] how often each sample is seen in an epoch of training


@dataclass(frozen=True)
class PartNumbers:
    """The number of each sample's part, where parts stand one after another."""

    starts: Ids  # [parts + 1] the first sample of each, and the end

    def __getitem__(self, samples: Ids) -> Ids:
        return np.searchsorted(self.starts, samples, side="right") - 1

    def __len__(self) -> int:
        return int(self.starts[-1])

    def ask(
        self, samples: Ids, parts: Sequence[Callable[[Ids], NDArray[np.generic]]], answers: NDArray[np.generic]
    ) -> None:
        """Fill `answers` [B] with what each sample's part says of it, by its number within the part."""
        numbers = self[samples]
        for number in np.unique(numbers):
            own = numbers == number
            answers[own] = parts[number](samples[own] - self.starts[number])


@dataclass(frozen=True)
class _UsedOfParts:
    parts: tuple[Callable[[Ids], NDArray[np.bool_]], ...]
    numbers: PartNumbers

    def __call__(self, samples: Ids) -> NDArray[np.bool_]:
        answers = np.empty(len(samples), dtype=np.bool_)
        self.numbers.ask(samples, self.parts, answers)
        return answers


@dataclass(frozen=True)
class JoinedLengths(LargeLengths):
    """Of several data sets, one after another."""

    parts: tuple[LargeLengths, ...]
    numbers: PartNumbers

    def __getitem__(self, samples: Ids) -> Ids:
        answers = np.empty(len(samples), dtype=np.int64)
        self.numbers.ask(samples, [part.__getitem__ for part in self.parts], answers)
        return answers

    def __add__(self, more: int) -> "JoinedLengths":
        return replace(self, parts=tuple(part + more for part in self.parts))

    def max(self, initial: int = 0) -> int:
        return max(part.max(initial) for part in self.parts)

    def sum(self) -> int:
        return sum(part.sum() for part in self.parts)

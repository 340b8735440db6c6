"""An epoch of samples as batches of tensors, made ahead of their use by a thread or by processes.

A large data set is batched window by window (`app.data.windows`), each while the one before it is used; any other is
one window.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, tee
from typing import NamedTuple, TypeVar

import numpy as np

from app.config import BatchingConfig
from app.data.batch import Batch
from app.data.batching import (
    Indices,
    longest_of,
    make_batches,
    padding_share,
    repeat_by_weight,
    share,
    skip_samples,
)
from app.data.dataset import Grouped, Redrawn, Samples
from app.data.fairseq_order import batch_by_size, epoch_batches, ordered_indices
from app.data.large import LargeWeights, Lengths
from app.data.windows import Windows
from app.data.workers import in_workers
from app.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Place(NamedTuple):
    """Where in an epoch a window stands."""

    window: int  # its number
    samples_before: int  # those of the windows before it, over all shards


class Step(NamedTuple):
    """What all shards do at once."""

    samples: Indices | None  # of this shard's batch; None where there is none left for it
    num_samples: int  # over all shards
    place: Place  # of the window that it ends in


@dataclass(frozen=True)
class Window:
    """Batches for one worker."""

    batches: list[Indices]
    lengths: tuple[Lengths, Lengths]  # of the data set's sources and targets

    @cached_property
    def num_samples(self) -> int:
        return sum(map(len, self.batches))

    @cached_property
    def padding(self) -> float:
        return padding_share(self.batches, *self.lengths)

    def longest(self) -> Indices:
        """The batch with the most positions."""
        longest = sum(longest_of(self.batches, side)[0] for side in self.lengths)
        return self.batches[int(np.argmax(longest * [len(batch) for batch in self.batches]))]


class EpochIterator:
    """One epoch's batches (`interfaces.BatchIterator`). With `epoch=None` every sample once, in order of length.

    Shard i of n takes batches i, i + n, ... of a list that is the same for every number of shards: in the last step
    some may have none. Where that must not be (`even`), the last batches are cut until they suffice.
    """

    def __init__(
        self,
        dataset: Samples,
        cfg: BatchingConfig,
        epoch: int | None,
        shard: tuple[int, int] | tuple[int, int, bool] = (0, 1),
    ):
        self._dataset, self._cfg = dataset, cfg
        self._index, self._count, self._even = (*shard, False)[:3]
        self._trains = epoch is not None
        self.epoch = epoch or 0
        self.num_samples = 0
        self._place = Place(0, 0)  # of a window that has the next sample, or stands before it
        self._made: dict[int, Window] = {}  # one that is used, one that is prefetched from, one that is made ahead

    @property
    def _limit(self) -> tuple[int, str]:
        """Most tokens of a batch, and the setting that says so."""
        if self._trains:
            return self._cfg.most_tokens, "batching.max_tokens"
        return self._cfg.max_tokens_valid, "batching.max_tokens_valid"

    @cached_property
    def _windows(self) -> Windows | None:
        """The order of a large data set; None for any other. Raises DataError for a sample that no batch can hold."""
        weights, cfg, (limit, name) = self._dataset.weights, self._cfg, self._limit
        if not isinstance(weights, LargeWeights):
            return None
        longest = max(self._dataset.source_lengths.max(initial=0), self._dataset.target_lengths.max(initial=0))
        if longest > limit:
            mend = "raise it, or leave long samples out with task.max_source_positions and task.max_target_positions"
            raise DataError(f"{name}={limit}: the longest sample has {longest} tokens; {mend}")
        if self._trains:
            rng = np.random.default_rng([cfg.seed, self.epoch]) if cfg.shuffle else None
            return Windows(weights.spans, cfg.window, rng)
        return Windows([replace(span, weight=1.0) for span in weights.spans], cfg.window, None)

    @property
    def _num_windows(self) -> int:
        return 1 if self._windows is None else len(self._windows)

    def _window(self, number: int) -> Window:
        """Window `number` of the epoch."""
        if number not in self._made:
            batches = self._whole() if self._windows is None else self._large(self._windows[number], number)
            window = Window(batches, (self._dataset.source_lengths, self._dataset.target_lengths))
            self._made = {key: made for key, made in self._made.items() if key >= number - 2} | {number: window}
        return self._made[number]

    def _whole(self) -> list[Indices]:
        """The batches of an epoch that is one window."""
        cfg, weights = self._cfg, self._dataset.weights
        assert isinstance(weights, np.ndarray)
        if not self._trains:
            return self._grouped(np.arange(len(weights)), None)
        rng = np.random.default_rng([cfg.seed, self.epoch])
        chosen = repeat_by_weight(weights, rng)
        if cfg.order == "fairseq":
            return self._as_fairseq(chosen)
        return self._grouped(chosen, rng if cfg.shuffle else None)

    def _large(self, samples: Indices, number: int) -> list[Indices]:
        """The batches of those of `samples`, a window of a large data set, that are used."""
        weights, cfg = self._dataset.weights, self._cfg
        assert isinstance(weights, LargeWeights)
        shuffles = self._trains and cfg.shuffle
        rng = np.random.default_rng([cfg.seed, self.epoch, number + 1]) if shuffles else None  # 0 would be as no number
        return self._grouped(samples[weights.used(samples)], rng)

    def _grouped(self, chosen: Indices, rng: np.random.Generator | None) -> list[Indices]:
        """The batches of these samples, group by group where the data set has groups, then in random order."""
        dataset, batches, (max_tokens, limit) = self._dataset, [], self._limit
        for rows in self._of_each_group(chosen):
            lengths = dataset.source_lengths[rows], dataset.target_lengths[rows]
            made = make_batches(*lengths, max_tokens, self._cfg.max_sentences, rng, limit)
            batches += [rows[batch] for batch in made]
        if rng is None or not isinstance(dataset, Grouped):
            return batches
        return [batches[i] for i in rng.permutation(len(batches))]

    def _of_each_group(self, chosen: Indices) -> list[Indices]:
        """These samples, those of each group apart; of a data set without groups all together."""
        if not isinstance(self._dataset, Grouped):
            return [chosen]
        groups = self._dataset.groups[chosen]
        return [chosen[groups == group] for group in np.unique(groups)]

    def _as_fairseq(self, chosen: Indices) -> list[Indices]:
        """fairseq's batches of these samples, group by group where there are groups, in its order of the epoch."""
        cfg, dataset, batches = self._cfg, self._dataset, []
        limits = (cfg.most_tokens, cfg.max_sentences, cfg.required_batch_size_multiple)
        for rows in self._of_each_group(chosen):
            source, target = dataset.source_lengths[rows], dataset.target_lengths[rows]
            order, longest = ordered_indices(source, target, cfg.seed), np.maximum(source, target)
            batches += [rows[batch] for batch in batch_by_size(order, longest[order], *limits)]
        return epoch_batches(batches, cfg.seed, self.epoch) if cfg.shuffle else batches

    def _steps(self) -> Iterator[Step]:
        """What is left to do. Batches that are too few for a step wait for those of the next window."""
        count, done, (first, passed) = self._count, self.num_samples, self._place
        waiting: list[Indices] = []
        ahead = 1 if first + 1 < self._num_windows else 0
        for number, window in enumerate(prefetched(self._window, range(first, self._num_windows), ahead), first):
            waiting += skip_samples(window.batches, max(0, done - passed))
            is_last = number + 1 == self._num_windows
            if is_last and self._even:
                waiting = share(waiting, count) if sum(map(len, waiting)) >= count else []
            end = len(waiting) if is_last else len(waiting) // count * count
            for start in range(0, end, count):
                step = dict(enumerate(waiting[start : min(start + count, end)]))
                yield Step(step.get(self._index), sum(map(len, step.values())), Place(number, passed))
            waiting = waiting[end:]
            passed += window.num_samples

    def is_done(self) -> bool:
        """Whether no step is left for any shard."""
        number, passed = self._place
        left = passed + self._window(number).num_samples - self.num_samples
        return number + 1 == self._num_windows and left < (self._count if self._even else 1)

    @property
    def padding(self) -> float:
        """The share of positions that is padding, 0..1, in this epoch's batches, or in those of the window."""
        return self._window(self._place.window).padding

    @property
    def _drawn(self) -> Samples:
        """The data set as this epoch has it."""
        return self._dataset.in_epoch(self.epoch) if isinstance(self._dataset, Redrawn) else self._dataset

    def longest(self) -> Batch:
        """The batch with the most positions, of any shard, of the epoch or of the window."""
        windows = map(self._window, range(self._place.window, self._num_windows))
        return self._drawn.collate(next(window.longest() for window in windows if window.batches))

    def samples_of_first(self, num_batches: int) -> int:
        """How many samples this many of the window's batches hold, over all shards."""
        return sum(map(len, self._window(self._place.window).batches[:num_batches]))

    def halves(self, batch: Batch) -> list[Batch]:
        """The same samples in two batches."""
        return [self._drawn.collate(part) for part in np.array_split(batch.ids.cpu().numpy(), 2)]

    def __len__(self) -> int:
        """Steps left; of a large data set all windows are made for it."""
        return sum(1 for _ in self._steps())

    def __iter__(self) -> Iterator[Batch]:
        return (batch for batch in self.steps() if batch is not None)

    def steps(self) -> Iterator[Batch | None]:
        """This shard's batch in every step that is left; None where only others have one."""
        steps, ahead = tee(self._steps())
        own = (step.samples for step in ahead if step.samples is not None)
        if self._trains and self._cfg.num_workers:
            batches = in_workers(self._drawn.collate, own, self._cfg.num_workers, self._cfg.worker_timeout)
        else:
            batches = prefetched(self._drawn.collate, own, self._cfg.prefetch)
        for step in steps:
            self.num_samples += step.num_samples
            self._place = step.place
            yield None if step.samples is None else next(batches)

    def state_dict(self) -> dict[str, int]:
        place = self._place._asdict() if self._place.window else {}
        return {"epoch": self.epoch, "num_samples": self.num_samples, **place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The place in the data; windows are gone through up to it where the state does not name one."""
        self.epoch, self.num_samples = state["epoch"], state["num_samples"]
        self._place = Place(state.get("window", 0), state.get("samples_before", 0))
        self._made = {}
        self.__dict__.pop("_windows", None)  # made for another epoch


def prefetched(function: Callable[[Item], Result], items: Iterable[Item], depth: int) -> Iterator[Result]:
    """`map(function, items)`, `depth` results ahead of their use, by a thread that ends with the iteration.

    What the function raises is raised here, when its result is asked for. With depth 0 there is no thread.
    """
    if depth == 0:
        yield from map(function, items)
        return
    stream = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting = deque(pool.submit(function, item) for item in islice(stream, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(stream, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)

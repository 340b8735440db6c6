"""An epoch of samples as batches of tensors, made ahead of their use by a thread or by processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from app.config import BatchingConfig
from app.data.batch import Batch
from app.data.batching import Indices, make_batches, padding_share, repeat_by_weight, share, skip_samples
from app.data.dataset import Grouped, Redrawn, Samples
from app.data.fairseq_order import batch_by_size, epoch_batches, ordered_indices
from app.data.workers import in_workers

Item = TypeVar("Item")
Result = TypeVar("Result")


class Step(NamedTuple):
    """What all shards do at once."""

    samples: Indices | None  # of this shard's batch; None where there is none left for it
    num_samples: int  # over all shards


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

    @cached_property
    def _batches(self) -> list[Indices]:
        """The whole epoch's batches, for one worker."""
        cfg = self._cfg
        if not self._trains:
            limit = "batching.max_tokens_valid"
            return self._grouped(np.arange(len(self._dataset.weights)), cfg.max_tokens_valid, None, limit)
        rng = np.random.default_rng([cfg.seed, self.epoch])
        chosen = repeat_by_weight(self._dataset.weights, rng)
        if cfg.order == "fairseq":
            return self._as_fairseq(chosen)
        return self._grouped(chosen, cfg.most_tokens, rng if cfg.shuffle else None, "batching.max_tokens")

    def _grouped(self, chosen: Indices, max_tokens: int, rng: np.random.Generator | None, limit: str) -> list[Indices]:
        """The batches of these samples, group by group where the data set has groups, then in random order."""
        dataset, batches = self._dataset, []
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

    def _steps(self) -> list[Step]:
        """What is left to do."""
        count = self._count
        batches = skip_samples(self._batches, self.num_samples)
        if self._even:
            batches = share(batches, count) if sum(map(len, batches)) >= count else []
        groups = [batches[i : i + count] for i in range(0, len(batches), count)]
        return [Step(dict(enumerate(group)).get(self._index), sum(map(len, group))) for group in groups]

    @cached_property
    def padding(self) -> float:
        """The share of positions in this epoch's batches that is padding, 0..1."""
        return padding_share(self._batches, self._dataset.source_lengths, self._dataset.target_lengths)

    @property
    def _drawn(self) -> Samples:
        """The data set as this epoch has it."""
        return self._dataset.in_epoch(self.epoch) if isinstance(self._dataset, Redrawn) else self._dataset

    def longest(self) -> Batch:
        """The epoch's batch with the most positions, of any shard."""
        lengths = self._dataset.source_lengths, self._dataset.target_lengths
        most = max(self._batches, key=lambda batch: len(batch) * sum(int(side[batch].max()) for side in lengths))
        return self._drawn.collate(most)

    def samples_of_first(self, num_batches: int) -> int:
        """How many samples this many of the epoch's batches hold, over all shards."""
        return sum(map(len, self._batches[:num_batches]))

    def halves(self, batch: Batch) -> list[Batch]:
        """The same samples in two batches."""
        return [self._drawn.collate(part) for part in np.array_split(batch.ids.cpu().numpy(), 2)]

    def __len__(self) -> int:
        return len(self._steps())

    def __iter__(self) -> Iterator[Batch]:
        steps = self._steps()
        own = (step.samples for step in steps if step.samples is not None)
        if self._trains and self._cfg.num_workers:
            batches = in_workers(self._drawn.collate, own, self._cfg.num_workers, self._cfg.worker_timeout)
        else:
            batches = prefetched(self._drawn.collate, own, self._cfg.prefetch)
        for step in steps:
            self.num_samples += step.num_samples
            if step.samples is not None:
                yield next(batches)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "num_samples": self.num_samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.num_samples = state["epoch"], state["num_samples"]
        for made_for_another_epoch in ("_batches", "padding"):
            self.__dict__.pop(made_for_another_epoch, None)


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

"""Which samples go into which batch: pure functions of lengths, limits, seed and epoch.

A batch of B pairs with longest source S and longest target T has B * S <= max_tokens and B * T <= max_tokens.
"""

import numpy as np
from numpy.typing import NDArray

from app.errors import DataError

Indices = NDArray[np.int64]

FULL = 0.85  # a batch may end this full, where the next samples would only add padding


def make_batches(
    source_lengths: Indices,
    target_lengths: Indices,
    max_tokens: int,
    max_sentences: int = 0,
    rng: np.random.Generator | None = None,
    limit: str = "batching.max_tokens",
) -> list[Indices]:
    """Batches of sample numbers, every sample once; `max_sentences` 0 is no limit.

    Samples of like length stand together, so that little is padding. With `rng` the batches are formed anew from
    another order of the samples and come in random order; without, in order of length, always alike.
    Raises `DataError`, which calls `max_tokens` by its key `limit`, for a sample that no batch can hold.
    """
    if not len(source_lengths):
        return []
    longest = np.maximum(source_lengths, target_lengths)
    if longest.max() > max_tokens:
        worst = int(longest.argmax())
        raise DataError(
            f"{limit}={max_tokens}: sample {worst} alone has {longest[worst]} tokens; raise it, or leave "
            "long samples out with task.max_source_positions and task.max_target_positions"
        )
    order = _by_length(source_lengths, target_lengths, rng)
    lengths = np.stack([source_lengths[order], target_lengths[order]])
    sizes = _cut(lengths, max_tokens, max_sentences or len(order), rng)
    batches = np.split(order, np.cumsum(sizes)[:-1])
    return [batches[i] for i in rng.permutation(len(batches))] if rng else batches


def _by_length(source_lengths: Indices, target_lengths: Indices, rng: np.random.Generator | None) -> Indices:
    """Sample numbers by the longer side's length, and by the difference of the sides among equals.

    The difference rises within one length and falls within the next, so that neighbours are alike on both sides. `rng`
    orders what is equal, and chooses which way to go through lengths and differences.
    """
    longest, difference = np.maximum(source_lengths, target_lengths), source_lengths - target_lengths
    ties, turn, way = np.arange(len(longest)), 0, 1
    if rng:
        ties, turn, way = rng.permutation(len(longest)), int(rng.integers(2)), int(rng.choice([-1, 1]))
    return np.lexsort((ties, np.where((longest + turn) % 2, difference, -difference), way * longest))


def _cut(lengths: Indices, max_tokens: int, limit: int, rng: np.random.Generator | None) -> list[int]:
    """Sizes of the batches that rows of `lengths` [2, N], in this order, are cut into, each of at most `limit` rows.

    A batch takes what it can hold, less up to 15 % where that leaves it with a smaller share of padding. With `rng` the
    first one is cut at random, which moves the borders of all.
    """
    sizes: list[int] = []
    start, count = 0, lengths.shape[1]
    while start < count:
        window = lengths[:, start : start + min(limit, max_tokens // int(lengths[:, start].max()))]
        rows = np.arange(1, window.shape[1] + 1)
        positions = np.maximum.accumulate(window, axis=1) * rows  # [2, rows] of each side, padding counted
        most = int(np.count_nonzero(positions.max(axis=0) <= max_tokens))
        least = max(1, int(most * FULL))
        if rng and not sizes:
            size = int(rng.integers(1, most + 1))
        elif start + most == count:
            size = most
        else:
            used = (window.cumsum(axis=1).sum(axis=0) / positions.sum(axis=0))[least - 1 : most]
            size = most - int(used[::-1].argmax())
        sizes.append(size)
        start += size
    return sizes


def share(batches: list[Indices], count: int) -> list[Indices]:
    """The same samples in the same order in a number of batches that `count` divides: nothing dropped or repeated.

    The last batches are cut into smaller ones, so that `count` workers each have one at every step.
    """
    split = list(batches)
    while len(split) % count:
        sizes = [len(batch) for batch in split]
        if max(sizes) < 2:
            raise DataError(f"{sum(sizes)} samples are too few for {count} workers; use fewer workers")
        last = sizes[-(len(sizes) % count) :]  # of the last step only: other numbers of workers have the same steps
        tail = last if max(last) > 1 else sizes
        place = len(split) - len(tail) + tail.index(max(tail))
        middle = (sizes[place] + 1) // 2
        split[place : place + 1] = split[place][:middle], split[place][middle:]
    return split


def skip_samples(batches: list[Indices], samples: int) -> list[Indices]:
    """What is left when the first `samples` samples were taken, the batch in which they end being cut."""
    ends = np.cumsum([len(batch) for batch in batches], dtype=np.int64)
    at = int(np.searchsorted(ends, samples, side="right"))
    if at == len(batches):
        return []
    rest = batches[at][len(batches[at]) - int(ends[at] - samples) :]
    return [rest, *batches[at + 1 :]]


def repeat_by_weight(weights: NDArray[np.float64], rng: np.random.Generator) -> Indices:
    """Sample numbers in which sample i stands `weights[i]` times: 2.5 is twice, and once more for a random half."""
    whole = np.floor(weights).astype(np.int64)
    return np.repeat(np.arange(len(weights)), whole + (rng.random(len(weights)) < weights - whole))


def padding_share(batches: list[Indices], *lengths: Indices) -> float:
    """The share of positions, over all batches and sides, that holds no token."""
    tokens = sum(int(side[batch].sum()) for batch in batches for side in lengths)
    positions = sum(len(batch) * int(side[batch].max()) for batch in batches for side in lengths)
    return 1 - tokens / positions if positions else 0.0

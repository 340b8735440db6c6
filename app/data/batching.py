"""Which samples go into which batch: pure functions of lengths, limits, seed and epoch.

A batch of B pairs with longest source S and longest target T has B * S <= max_tokens and B * T <= max_tokens.
"""

import numpy as np
from numpy.typing import NDArray

from app.data.large import Lengths
from app.errors import DataError

Indices = NDArray[np.int64]

GRAIN = 16  # blocks of a full batch, between which batches may be cut
PRICE = 0.15  # of a batch, in full ones: what padding must save for one more
NOISE = 0.1  # share of that by which random prices differ
SEGMENT = 2**16  # blocks that are cut at once


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


def _cut(lengths: Indices, max_tokens: int, limit: int, rng: np.random.Generator | None) -> Indices:
    """Sizes of the batches that rows of `lengths` [2, N], in this order, are cut into, each of at most `limit` rows.

    Cuts are made between blocks, which end where a `GRAIN`th of a batch is full or the longer side's length changes.
    Of all ways to cut there, that with the fewest positions is taken, where each batch counts as `PRICE` of a full one
    more, so that batches stay large. With `rng` blocks and prices differ a little, and so the cuts from epoch to epoch.
    """
    longest = lengths.max(axis=0)
    filled = np.maximum(longest, -(-max_tokens // limit)).cumsum() + (int(rng.integers(max_tokens)) if rng else 0)
    ends_here = (np.diff(filled * GRAIN // max_tokens) > 0) | (np.diff(longest) != 0)
    starts = np.flatnonzero(np.append(True, ends_here))
    rows, sides = np.diff(starts, append=len(longest)), np.maximum.reduceat(lengths, starts, axis=1)
    sizes = []
    for first in range(0, len(rows), SEGMENT):
        part = slice(first, first + SEGMENT)
        last = np.cumsum(_cheapest(_costs(rows[part], sides[:, part], max_tokens, limit, rng))) - 1
        sizes.append(np.diff(rows[part].cumsum()[last], prepend=0))
    return np.concatenate(sizes)


def _costs(
    rows: Indices, sides: Indices, max_tokens: int, limit: int, rng: np.random.Generator | None
) -> NDArray[np.float64]:
    """[blocks, K]: what a batch costs that ends with block j and has K - k blocks; infinite where that is too many.

    `rows` [blocks] and `sides` [2, blocks] are the blocks' rows and longest source and target.
    """
    costs: list[NDArray[np.float64]] = []
    count, longest = rows, sides
    while (fits := (count <= limit) & (count * longest.max(axis=0) <= max_tokens)).any():
        price = PRICE * (1 + NOISE * rng.uniform(-1, 1, len(rows)) if rng else 1) * max_tokens
        costs.append(np.where(fits, count * longest.sum(axis=0) + price, np.inf))
        count = rows + np.append(limit, count[:-1])  # nothing stands before the first block
        longest = np.maximum(sides, np.roll(longest, 1, axis=1))
    return np.stack(costs[::-1], axis=1)


def _cheapest(costs: NDArray[np.float64]) -> list[int]:
    """How many blocks each batch has in the cheapest cut (Bellman, 1957): [blocks, K] is what `_costs` returns."""
    blocks, most = costs.shape
    total = np.full(most + blocks, np.inf)  # of all batches up to a block, `most` places on
    total[most - 1] = 0.0
    taken = np.zeros(blocks, dtype=np.int64)
    for block in range(blocks):
        ways = total[block : block + most] + costs[block]
        best = ways.argmin()
        taken[block], total[block + most] = most - best, ways[best]
    batches, end = [], blocks
    while end:
        batches.append(int(taken[end - 1]))
        end -= batches[-1]
    return batches[::-1]


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


def padding_share(batches: list[Indices], *lengths: Lengths) -> float:
    """The share of positions, over all batches and sides, that holds no token."""
    sizes, tokens, positions = np.array([len(batch) for batch in batches]), 0, 0
    for side in lengths if batches else ():
        longest, total = longest_of(batches, side)
        tokens, positions = tokens + total, positions + int((sizes * longest).sum())
    return 1 - tokens / positions if positions else 0.0


def longest_of(batches: list[Indices], lengths: Lengths) -> tuple[Indices, int]:
    """The longest sample of each batch, and the sum of all lengths, which are asked for in the samples' order."""
    samples, starts = np.concatenate(batches), np.cumsum([0, *(len(batch) for batch in batches[:-1])])
    order = np.argsort(samples)
    found = np.empty_like(samples)
    found[order] = lengths[samples[order]]
    return np.maximum.reduceat(found, starts), int(found.sum())

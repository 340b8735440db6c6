"""fairseq's batches, to repeat its runs: sorted once, frozen, and shuffled by epoch (`batching.order=fairseq`).

They hold more padding than `make_batches`, and the same sentences meet in every epoch. Fixed shapes, which are for
TPUs, are not here.
"""

import numpy as np
from numpy.typing import NDArray

from app.data.batching import Indices


def random_state(seed: int, *more: int) -> np.random.RandomState:
    """What `numpy_seed(seed, *more)` makes of numpy's global generator."""
    return np.random.RandomState(int(hash((seed, *more)) % 1e6) if more else seed)


def ordered_indices(source_lengths: Indices, target_lengths: Indices, seed: int) -> Indices:
    """Sample numbers by source length, then by target length, then in the random order of `seed`."""
    order = random_state(seed).permutation(len(source_lengths))
    order = order[np.argsort(target_lengths[order], kind="stable")]
    return order[np.argsort(source_lengths[order], kind="stable")]


def filter_by_size(*sides: tuple[Indices, int]) -> NDArray[np.bool_]:
    """Which samples are kept: those of which no side is longer, eos included, than what can be represented."""
    kept: NDArray[np.bool_] = np.logical_and.reduce([lengths <= limit for lengths, limit in sides])
    return kept


def batch_by_size(
    indices: Indices, num_tokens: Indices, max_tokens: int = 0, max_sentences: int = 0, multiple: int = 1
) -> list[Indices]:
    """`indices` in this order, cut into batches whose sizes are multiples of `multiple`, or less than it.

    `num_tokens` belongs to the positions in `indices`. A batch takes at most `max_sentences` samples and `max_tokens`
    times the longest (0: no limit). The last one is dropped if its size is no multiple, as fairseq's is.
    """

    def fits(start: int, end: int) -> bool:
        size = end - start
        return not (0 < max_sentences < size or 0 < max_tokens < size * int(num_tokens[start:end].max()))

    ends = []
    start = whole = 0  # the batch goes from `start` to `whole`, and has a tail that it takes once its size is right
    for end in range(1, len(indices) + 1):
        overflows = not fits(start, end)
        if overflows:
            if whole > start:
                ends.append(whole)
            start = whole
            tail_tokens = (end - start) * int(num_tokens[start:end].max())
            if 0 < max_tokens < tail_tokens and end - 1 > start:
                ends.append(end - 1)
                start = end - 1
        size = end - start
        if overflows or size < multiple or size % multiple == 0:
            whole = end
    ends += [whole] if whole > start else []
    batches = np.split(indices, [*ends, len(indices)])[: len(ends) + 1]
    batches = [batch for batch in batches if len(batch)]
    return batches[:-1] if multiple > 1 and batches and len(batches[-1]) % multiple else batches


def epoch_batches(batches: list[Indices], seed: int, epoch: int) -> list[Indices]:
    """The same batches in the order of an epoch, from 1."""
    shuffled = list(range(len(batches)))
    random_state(seed + epoch).shuffle(shuffled)
    return [batches[i] for i in shuffled]

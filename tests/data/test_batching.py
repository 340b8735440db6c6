"""Batches: every sample once, limits kept, little padding, a pure function of seed and epoch."""

from collections import Counter
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data import batching
from app.data.batching import PRICE, Indices, make_batches, padding_share, repeat_by_weight, share, skip_samples
from app.errors import DataError

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=200)
GOLDEN_ORDER = [[9, 8, 2], [1, 7, 0], [6, 5], [4, 11, 10, 3]]
LIMITS = st.tuples(st.integers(40, 300), st.integers(0, 20))


def sides(pairs: list[tuple[int, int]]) -> tuple[Indices, Indices]:
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def rng(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


def as_lists(batches: list[Indices]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@given(pairs=LENGTHS, limits=LIMITS, seed=st.none() | st.integers(0, 5))
def test_every_sample_once_within_the_limits(pairs: list[tuple[int, int]], limits: tuple[int, int], seed: int) -> None:
    max_tokens, max_sentences = limits
    make = lambda: make_batches(*sides(pairs), max_tokens, max_sentences, None if seed is None else rng(seed, 1))  # noqa: E731
    batches = make()
    assert sorted(i for batch in as_lists(batches) for i in batch) == list(range(len(pairs)))
    for batch in as_lists(batches):
        assert 0 < len(batch) <= (max_sentences or len(pairs))
        for side in (0, 1):
            assert len(batch) * max(pairs[i][side] for i in batch) <= max_tokens
    assert as_lists(batches) == as_lists(make())


def cost(pairs: list[tuple[int, int]], batches: list[list[int]], max_tokens: int) -> float:
    """Positions, padding counted, and the price of each batch."""
    longest = ([max(pairs[i][side] for i in batch) for side in (0, 1)] for batch in batches)
    return sum(len(batch) * sum(sides) + PRICE * max_tokens for batch, sides in zip(batches, longest, strict=True))


def cheapest_cost(pairs: list[tuple[int, int]], max_tokens: int, max_sentences: int) -> float:
    """What the best cut costs, without `rng`: the rules as they are written down, by recursion."""

    def place(i: int) -> tuple[int, int, int]:
        source, target = pairs[i]
        rises = max(source, target) % 2
        return max(source, target), source - target if rises else target - source, i

    order = sorted(range(len(pairs)), key=place)
    least = -(-max_tokens // (max_sentences or len(pairs)))
    filled = list(accumulate(max(least, *pairs[i]) for i in order))
    sixteenth = [16 * each // max_tokens for each in filled]
    lengths = [max(pairs[i]) for i in order]
    borders = [i for i in range(1, len(order)) if sixteenth[i] > sixteenth[i - 1] or lengths[i] != lengths[i - 1]]

    @cache
    def best_from(start: int) -> float:
        if start == len(order):
            return 0.0
        costs = []
        for end in (border for border in [*borders, len(order)] if border > start):
            batch = order[start:end]
            if len(batch) * max(lengths[start:end]) > max_tokens or len(batch) > (max_sentences or len(batch)):
                break
            costs.append(cost(pairs, [batch], max_tokens) + best_from(end))
        return min(costs)

    return best_from(0)


@given(pairs=LENGTHS, limits=LIMITS)
def test_no_other_cut_is_cheaper(pairs: list[tuple[int, int]], limits: tuple[int, int]) -> None:
    batches = as_lists(make_batches(*sides(pairs), *limits))
    expected = cheapest_cost(pairs, *limits) if pairs else 0.0
    assert cost(pairs, batches, limits[0]) == pytest.approx(expected)


def test_many_sentences_are_cut_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = realistic_lengths(2000)
    whole = make_batches(*lengths, 512)
    monkeypatch.setattr(batching, "SEGMENT", 100)
    cut = make_batches(*lengths, 512)
    assert np.concatenate(cut).tolist() == np.concatenate(whole).tolist()
    assert len(whole) <= len(cut) < len(whole) + 20
    assert max(len(batch) * max(side[batch].max() for side in lengths) for batch in cut) <= 512


def realistic_lengths(count: int = 20_000) -> tuple[Indices, Indices]:
    """Like Multi30k in pieces: 16 on average, the two sides alike."""
    draw = np.random.default_rng(0)
    source = np.clip(draw.gamma(7, 2.2, count), 4, 60)
    return np.rint(source).astype(np.int64), np.rint(np.clip(source + draw.normal(0, 2.5, count), 3, 60)).astype(
        np.int64
    )


def test_little_is_padding() -> None:
    lengths = realistic_lengths()
    batches = make_batches(*lengths, 4096, 0, rng(1, 1))
    assert padding_share(batches, *lengths) < 0.035
    assert len(batches) < 1.2 * np.maximum(*lengths).sum() / 4096


def test_batches_are_formed_anew_in_each_epoch() -> None:
    lengths = realistic_lengths()
    first, again, second = (make_batches(*lengths, 4096, 0, rng(1, epoch)) for epoch in (1, 1, 2))
    assert as_lists(first) == as_lists(again)
    together = {frozenset(batch) for batch in as_lists(first)} & {frozenset(batch) for batch in as_lists(second)}
    assert len(together) <= 1
    longest = [int(np.maximum(*lengths)[batch].max()) for batch in first]
    assert longest != sorted(longest)


def test_order_is_the_same_on_every_machine() -> None:
    """A resumed run depends on this order: it may change only with a new major version."""
    pairs = [(3 + i % 7, 2 + i % 5) for i in range(12)]
    assert as_lists(make_batches(*sides(pairs), 30, 0, rng(1, 1))) == GOLDEN_ORDER


def test_sample_longer_than_a_batch_is_refused() -> None:
    with pytest.raises(DataError, match="max_tokens=40: sample 1 alone has 41 tokens"):
        make_batches(*sides([(3, 4), (5, 41)]), 40)
    with pytest.raises(DataError, match="^max_tokens_valid=40: "):
        make_batches(*sides([(5, 41)]), 40, limit="max_tokens_valid")


@given(sizes=st.lists(st.integers(1, 9), max_size=12), count=st.integers(1, 9))
def test_shards_get_equally_many_batches_and_nothing_is_lost(sizes: list[int], count: int) -> None:
    samples = np.arange(sum(sizes))
    batches = np.split(samples, np.cumsum(sizes)[:-1]) if sizes else []
    if sizes and sum(sizes) < count:
        with pytest.raises(DataError, match="too few"):
            share(batches, count)
        return
    shared = share(batches, count)
    assert len(shared) % count == 0
    assert all(len(batch) for batch in shared)
    assert np.concatenate([samples[:0], *shared]).tolist() == samples.tolist()
    assert as_lists(share(shared, count)) == as_lists(shared)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), data=st.data())
def test_skipping_samples_keeps_the_rest(sizes: list[int], data: st.DataObject) -> None:
    samples = np.arange(sum(sizes))
    skipped = data.draw(st.integers(0, sum(sizes)))
    rest = skip_samples(np.split(samples, np.cumsum(sizes)[:-1]), skipped)
    assert [i for batch in as_lists(rest) for i in batch] == samples[skipped:].tolist()
    assert all(len(batch) for batch in rest)


def test_weights_repeat_samples() -> None:
    weights = np.repeat([1.0, 2.0, 0.0, 2.5], 1000)
    counts = Counter((repeat_by_weight(weights, rng(1, 1)) // 1000).tolist())
    assert (counts[0], counts[1], counts[2]) == (1000, 2000, 0)
    assert 2400 < counts[3] < 2600
    assert repeat_by_weight(np.ones(5), rng(1, 1)).tolist() == [0, 1, 2, 3, 4]


def test_module_needs_numpy_only() -> None:
    source = Path(__file__).parents[2] / "app" / "data" / "batching.py"
    assert "torch" not in source.read_text()

"""Data sets that are batched window by window: the same batches for all numbers of workers, resumable in any window."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.data.dataset import PairDataset
from app.data.grouped import GroupedDataset
from app.data.iterator import EpochIterator
from app.data.large import JoinedLengths, LargeWeights
from app.data.pair_rows import EveryRow, PairRows
from app.data.windows import Span
from app.errors import DataError
from tests.data.test_iterator import CFG as SMALL
from tests.data.test_iterator import make_dataset, samples

ROWS = 401
CFG = replace(SMALL, window=64)


def large(directory: Path, weights: tuple[float, float] = (1.0, 1.0)) -> tuple[PairDataset, list[int]]:
    """Rows of two directories, those of more than ten ids and those of eos alone left out; and those that are used."""
    draw = np.random.default_rng(0)
    rows = [[*draw.integers(4, 99, draw.integers(0, 12)).tolist(), 2] for _ in range(2 * ROWS)]
    whole = make_dataset(directory, rows[::2], rows[1::2])
    source, target = whole.source.unmapped(), whole.target.unmapped()
    pairs = PairRows(source, target, 10, 10)
    used = [i for i in range(ROWS) if all(1 < len(side[i]) <= 10 for side in (rows[::2], rows[1::2]))]
    spans = Span(0, 300, weights[0]), Span(300, 101, weights[1])
    rows_used, weights_of_spans = EveryRow(pairs.tally()), LargeWeights(spans, pairs.used)
    return replace(whole, source=source, target=target, rows=rows_used, weights=weights_of_spans), used


def stream(iterators: list[EpochIterator]) -> list[list[int]]:
    """The batches of all shards, in the order of the epoch."""
    steps = zip(*(iterator.steps() for iterator in iterators), strict=True)
    return samples([batch for step in steps for batch in step if batch is not None])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_batches_are_the_same_for_every_number_of_shards(tmp_path: Path, count: int) -> None:
    dataset, used = large(tmp_path)
    alone = samples(list(EpochIterator(dataset, CFG, 1)))
    shards = [EpochIterator(dataset, CFG, 1, (index, count)) for index in range(count)]
    assert stream(shards) == alone
    assert sorted(sum(alone, [])) == used
    assert all(shard.is_done() for shard in shards)


def test_what_is_known_of_all_rows(tmp_path: Path) -> None:
    dataset, used = large(tmp_path)
    lengths = [store.lengths[used] for store in (dataset.source, dataset.target)]
    assert len(dataset) == len(used)
    for side, expected in zip((dataset.source_lengths, dataset.target_lengths), lengths, strict=True):
        assert (side[np.array(used)] == expected).all()
        assert (side.max(), side.sum()) == (expected.max(), expected.sum())
        assert ((side + 3).max(), (side + 3).sum()) == (expected.max() + 3, expected.sum() + 3 * len(used))
    assert isinstance(dataset.rows, EveryRow)
    assert sum(dataset.rows.tally.left_out) + len(used) == ROWS


def test_epochs_differ_and_windows_are_shuffled_from_all_over(tmp_path: Path) -> None:
    dataset, _ = large(tmp_path)
    one, two = (samples(list(EpochIterator(dataset, CFG, epoch))) for epoch in (1, 2))
    assert one != two
    first = sum(one, [])[:50]
    assert min(first) < ROWS / 4
    assert max(first) > ROWS * 3 / 4


@pytest.mark.parametrize("count", [1, 3])
def test_resumed_epoch_goes_on_as_the_unbroken_one(tmp_path: Path, count: int) -> None:
    dataset, _ = large(tmp_path)
    whole = samples(list(EpochIterator(dataset, CFG, 3, (0, count))))
    windows = set()
    for broken_at in range(1, len(whole) + 1, 5):
        first = EpochIterator(dataset, CFG, 3, (0, count))
        for _, _batch in zip(range(broken_at), first):
            state = first.state_dict()
        windows.add(state.get("window", 0))
        second = EpochIterator(dataset, CFG, 0, (0, count))
        second.load_state_dict(state)
        assert second.is_done() == (broken_at == len(whole))
        assert samples(list(second)) == whole[broken_at:]
        third = EpochIterator(dataset, CFG, 0, (0, count))
        third.load_state_dict({"epoch": 3, "num_samples": state["num_samples"]})  # which names no window
        assert samples(list(third)) == whole[broken_at:]
    assert len(windows) > 3


def test_a_resumed_epoch_looks_at_its_window_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = large(tmp_path)
    asked: list[int] = []
    whole = EpochIterator._window
    monkeypatch.setattr(EpochIterator, "_window", lambda self, number: (asked.append(number), whole(self, number))[1])
    resumed = EpochIterator(dataset, CFG, 3)
    resumed.load_state_dict({"epoch": 3, "num_samples": 200, "window": 4, "samples_before": 190})
    next(iter(resumed))
    assert min(asked) == 4


def test_number_of_workers_may_change_within_an_epoch(tmp_path: Path) -> None:
    dataset, used = large(tmp_path)
    seen: list[int] = []
    for shard in [EpochIterator(dataset, CFG, 1, (index, 3)) for index in range(3)]:
        for _, batch in zip(range(17), shard):
            seen += batch.ids.tolist()
            state = shard.state_dict()
    assert state["window"]
    for count in (2, 5):
        shards = [EpochIterator(dataset, CFG, 0, (index, count)) for index in range(count)]
        for shard in shards:
            shard.load_state_dict(state)
        assert sorted(seen + sum(stream(shards), [])) == used


def test_every_shard_has_a_batch_in_every_step_where_that_is_asked_for(tmp_path: Path) -> None:
    dataset, used = large(tmp_path)
    shards = [EpochIterator(dataset, CFG, 1, (index, 4, True)) for index in range(4)]
    steps = [list(shard.steps()) for shard in shards]
    assert all(batch is not None for shard in steps for batch in shard)
    assert sorted(i for shard in steps for batch in shard if batch is not None for i in batch.ids.tolist()) == used


def test_validation_sees_every_sample_once_whatever_its_weight(tmp_path: Path) -> None:
    dataset, used = large(tmp_path, (0.0, 3.0))
    assert sorted(sum(samples(list(EpochIterator(dataset, CFG, None))), [])) == used


def test_weights_are_drawn_without_copies(tmp_path: Path) -> None:
    dataset, used = large(tmp_path, (0.5, 4.0))
    seen = Counter(sum(samples(list(EpochIterator(dataset, CFG, 1))), []))
    assert {seen[i] for i in used if i >= 300} == {4}
    assert {seen[i] for i in used if i < 300} == {0, 1}
    assert max(len(window) for window in map(EpochIterator(dataset, CFG, 1)._windows.__getitem__, range(3))) <= 64


def test_groups_share_an_epoch_by_temperature_and_do_not_meet(tmp_path: Path) -> None:
    part, used = large(tmp_path)
    few = replace(part, weights=replace(part.weights, spans=(Span(0, ROWS, 1 / 4),)))
    both = GroupedDataset({"a": part, "b": few}, temperature=2.0)
    assert isinstance(both.source_lengths, JoinedLengths)
    assert (both.source_lengths[np.array([5, ROWS + 5])] == part.source_lengths[np.array([5, 5])]).all()
    batches = [batch for epoch in range(1, 6) for batch in EpochIterator(both, CFG, epoch)]
    counts = Counter(batch.group for batch in batches for _ in range(len(batch)))  # type: ignore[attr-defined]
    assert counts["a"] / counts["b"] == pytest.approx(2, rel=0.1)
    assert sum(counts.values()) == pytest.approx(5 * len(used) * 5 / 4, rel=0.05)
    assert sum((both.weights.sum(), -part.weights.sum(), -few.weights.sum())) == pytest.approx(0)
    for batch in batches[:20]:
        assert {int(i) // ROWS for i in batch.ids} == {"ab".index(batch.group)}  # type: ignore[attr-defined]


def test_a_sample_that_no_batch_can_hold_is_told_before_the_first_batch(tmp_path: Path) -> None:
    dataset, _ = large(tmp_path)
    with pytest.raises(DataError, match=r"batching.max_tokens=9: the longest sample has 10 tokens"):
        EpochIterator(dataset, replace(CFG, max_tokens=9), 1).longest()


def test_padding_and_the_longest_batch_are_those_of_the_window(tmp_path: Path) -> None:
    dataset, _ = large(tmp_path)
    iterator = EpochIterator(dataset, CFG, 1)
    assert 0 < iterator.padding < 0.3
    assert iterator.longest().src_tokens.numel() > 20
    assert len(iterator._made) == 1

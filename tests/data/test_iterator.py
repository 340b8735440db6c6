"""The batch iterator: tensors as fairseq makes them, resumable anywhere, for any number of workers."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.data.batch import Batch
from app.data.dataset import PairDataset
from app.data.grouped import GroupedDataset
from app.data.iterator import EpochIterator, prefetched
from app.data.store import Store, write_store
from tests.golden.cases import Case, claimed
from tests.runs import batching_config

CFG = batching_config(max_tokens=40, max_tokens_valid=60, prefetch=2)


def make_dataset(directory: Path, source: list[list[int]], target: list[list[int]], weight: float = 1.0) -> PairDataset:
    for name, rows in (("source", source), ("target", target)):
        with write_store(directory / name, 1000) as add:
            add(np.array(sum(rows, []), dtype=np.int64), np.array([len(row) for row in rows]))
    stores = (Store(directory / "source"), Store(directory / "target"))
    return PairDataset(*stores, np.arange(len(source)), np.full(len(source), weight), {})


@pytest.fixture
def dataset(tmp_path: Path) -> PairDataset:
    draw = np.random.default_rng(0)
    rows = [[*draw.integers(4, 99, draw.integers(1, 12)).tolist(), 2] for _ in range(202)]
    return make_dataset(tmp_path, rows[::2], rows[1::2])


def samples(batches: list[Batch]) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


@pytest.mark.parametrize("case", claimed("data", "language_pair_collate*"))
def test_collates_as_fairseq(tmp_path: Path, case: Case) -> None:
    dataset = make_dataset(tmp_path, case.spec["source"], case.spec["target"])
    right_padded = [
        result
        for result in case.spec["results"]
        if result["options"] == {"left_pad_source": False, "left_pad_target": False}
    ]
    assert right_padded
    for expected in right_padded:
        batch = dataset.collate(np.array(expected["id"]))
        assert batch.src_tokens.tolist() == expected["net_input"]["src_tokens"]
        assert batch.src_lengths.tolist() == expected["net_input"]["src_lengths"]
        assert batch.prev_output_tokens.tolist() == expected["net_input"]["prev_output_tokens"]
        assert batch.target.tolist() == expected["target"]
        assert (batch.num_tokens, len(batch)) == (expected["ntokens"], expected["nsentences"])


def test_validation_sees_every_sample_once_in_a_fixed_order(dataset: PairDataset) -> None:
    first, again = (samples(list(EpochIterator(dataset, CFG, None))) for _ in range(2))
    assert first == again
    assert sorted(sum(first, [])) == list(range(101))


def test_epochs_differ_and_repeat_themselves(dataset: PairDataset) -> None:
    one, again, two = (samples(list(EpochIterator(dataset, CFG, epoch))) for epoch in (1, 1, 2))
    assert one == again != two
    assert sorted(sum(two, [])) == list(range(101))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shards_take_the_same_number_of_steps_and_miss_nothing(dataset: PairDataset, count: int) -> None:
    shards = [EpochIterator(dataset, CFG, 1, (index, count)) for index in range(count)]
    assert len({len(shard) for shard in shards}) == 1
    assert sorted(i for shard in shards for batch in samples(list(shard)) for i in batch) == list(range(101))
    assert [shard.num_samples for shard in shards] == [101] * count


@pytest.mark.parametrize("count", [1, 3])
def test_resumed_epoch_goes_on_as_the_unbroken_one(dataset: PairDataset, count: int) -> None:
    whole = samples(list(EpochIterator(dataset, CFG, 3, (0, count))))
    for broken_at in range(1, len(whole) + 1):
        first = EpochIterator(dataset, CFG, 3, (0, count))
        for _, _batch in zip(range(broken_at), first):
            state = first.state_dict()
        second = EpochIterator(dataset, CFG, 0, (0, count))
        second.load_state_dict(state)
        assert len(second) == len(whole) - broken_at
        assert samples(list(second)) == whole[broken_at:]
        assert second.state_dict() == {"epoch": 3, "num_samples": 101}


def test_number_of_workers_may_change_within_an_epoch(dataset: PairDataset) -> None:
    seen: list[int] = []
    for shard in [EpochIterator(dataset, CFG, 1, (index, 3)) for index in range(3)]:
        for _, batch in zip(range(4), shard):
            seen += batch.ids.tolist()
            state = shard.state_dict()
    for count in (2, 5):
        rest: list[int] = []
        for shard in [EpochIterator(dataset, CFG, 0, (index, count)) for index in range(count)]:
            shard.load_state_dict(state)
            rest += sum(samples(list(shard)), [])
        assert sorted(seen + rest) == list(range(101))


def test_weights_are_seen_in_training_only(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [[5, 2]] * 10, [[6, 2]] * 10, weight=3.0)
    assert sorted(sum(samples(list(EpochIterator(dataset, CFG, 1))), [])) == sorted(list(range(10)) * 3)
    assert sorted(sum(samples(list(EpochIterator(dataset, CFG, None))), [])) == list(range(10))


@pytest.mark.parametrize("order", ["lengths", "fairseq"])
def test_groups_do_not_meet_in_a_batch(dataset: PairDataset, order: str) -> None:
    half = len(dataset) // 2
    parts = {"a": slice(half), "b": slice(half, None)}
    both = GroupedDataset(
        {name: replace(dataset, rows=dataset.rows[rows], weights=dataset.weights[rows]) for name, rows in parts.items()}
    )
    batches = list(EpochIterator(both, replace(CFG, order=order), 1))
    seen = samples(batches)
    assert sorted(sum(seen, [])) == list(range(101))
    assert all(len({i < half for i in batch}) == 1 for batch in seen)
    groups = [batch[0] < half for batch in seen]
    assert groups not in (sorted(groups), sorted(groups, reverse=True))  # they take turns


def test_padding_is_told(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [[5, 2], [5, 5, 5, 2]], [[6, 2], [6, 2]])
    assert EpochIterator(dataset, CFG, None).padding == pytest.approx(2 / 12)


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_prefetching_thread_ends_with_the_iteration(dataset: PairDataset) -> None:
    iterator = iter(EpochIterator(dataset, CFG, 1))
    next(iterator)
    assert prefetch_threads()
    iterator.close()  # type: ignore[attr-defined]
    assert not prefetch_threads()


@pytest.mark.parametrize("depth", [0, 3])
def test_error_in_the_thread_reaches_the_consumer_in_its_place(depth: int) -> None:
    results = prefetched(lambda item: 1 // item, [1, 1, 0, 1], depth)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not prefetch_threads()


def test_prefetching_is_bounded() -> None:
    made: list[int] = []
    results = prefetched(made.append, range(100), 3)
    next(results)
    results.close()
    assert len(made) <= 5

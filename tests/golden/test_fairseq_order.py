"""fairseq's own batches, orders and epochs: sample numbers are compared exactly."""

from typing import Any

import numpy as np
import pytest

from app.data.fairseq_order import batch_by_size, epoch_batches, filter_by_size, ordered_indices, random_state
from app.data.iterator import EpochIterator
from tests.golden.cases import Case, claimed
from tests.runs import batching_config


@pytest.mark.parametrize("case", claimed("data", "numpy_seed*"))
def test_numpy_seed(case: Case) -> None:
    for result in case.spec["results"]:
        state = random_state(*result["args"])
        assert state.rand(len(result["rand"])).tolist() == result["rand"]
        assert state.permutation(len(result["permutation"])).tolist() == result["permutation"]


@pytest.mark.parametrize("case", claimed("data", "batch_by_size*"))
def test_batch_by_size(case: Case) -> None:
    lengths = np.array(case.spec["lengths"])
    orders = {"sorted": np.array(case.spec["sorted_order"]), "natural": np.arange(len(lengths))}
    for result in case.spec["results"]:
        order = orders[result["order"]]
        limits = (result["max_tokens"] or 0, result["max_sentences"] or 0)
        batches = batch_by_size(order, lengths[order], *limits, result["required_batch_size_multiple"])
        assert [batch.tolist() for batch in batches] == result["batches"], result


@pytest.mark.parametrize("case", claimed("data", "filter_by_size*"))
def test_filter_by_size(case: Case) -> None:
    lengths = [np.array(case.spec[f"{side}_lengths"]) for side in ("source", "target")]
    for result in case.spec["results"]:
        limits = result["max_positions"]
        kept = filter_by_size(*zip(lengths, limits if isinstance(limits, list) else [limits, limits]))
        assert np.flatnonzero(kept).tolist() == result["kept"]
        assert np.flatnonzero(~kept).tolist() == result["ignored"]


class Lengths:
    """Samples that are nothing but their lengths."""

    def __init__(self, case: Case):
        self.source_lengths, self.target_lengths = (np.array(case.spec[f"{s}_lengths"]) for s in ("source", "target"))
        self.weights = np.ones(len(self.source_lengths))

    def collate(self, rows: Any) -> list[int]:
        """Numbers as fairseq's collater orders them: the longest source first."""
        return [int(row) for row in rows[np.argsort(-self.source_lengths[rows], kind="stable")]]


def iterator(case: Case, epoch: int, shard: tuple[int, int], **changes: Any) -> Any:
    given = case.spec["batch_args"]
    limits = {"max_tokens": given["max_tokens"] or 10**6, "max_sentences": given["max_sentences"] or 0}
    values = {"order": "fairseq", "seed": case.spec["seed"], "max_tokens_valid": 10**6}
    values |= {"required_batch_size_multiple": given["required_batch_size_multiple"]}
    cfg = batching_config(**{**values, **limits, **changes})
    dataset: Any = Lengths(case)
    return EpochIterator(dataset, cfg, epoch, shard)


@pytest.mark.parametrize("case", claimed("data", "epoch_batch_iterator*"))
def test_epochs(case: Case) -> None:
    """The sequence of batches of every epoch and shard, and what is left of one after it is loaded."""
    lengths = Lengths(case)
    order = ordered_indices(lengths.source_lengths, lengths.target_lengths, case.spec["ordered_indices_seed"])
    assert order.tolist() == case.spec["ordered_indices"]
    for expected in case.spec["epochs"]:
        shard = (expected["shard"], expected["num_shards"])
        batches = [batch for batch in expected["batches_ids"] if batch]  # ours end where fairseq's have empty ones
        assert list(iterator(case, expected["epoch"], shard)) == batches, expected
    unshuffled = [batch for batch in case.spec["shuffle_false_epoch_1_shard_0_of_2"] if batch]
    assert list(iterator(case, 1, (0, 2), shuffle=False)) == unshuffled


@pytest.mark.parametrize("case", claimed("data", "epoch_batch_iterator*"))
def test_going_on_in_an_epoch(case: Case) -> None:
    resume = case.spec["resume"]
    shard, at = (resume["shard"], resume["num_shards"]), resume["state_dict_after_3_batches_of_epoch_2"]
    first = iterator(case, at["epoch"], shard)
    batches = iter(first)
    for _ in range(at["iterations_in_epoch"]):
        next(batches)
    second = iterator(case, 1, shard)
    second.load_state_dict(first.state_dict())
    assert list(second) == [batch for batch in resume["rest_after_loading_into_a_new_iterator"] if batch]


def test_epochs_have_the_same_batches() -> None:
    batches = [np.arange(i, i + 2) for i in range(0, 20, 2)]
    orders = [[batch.tolist() for batch in epoch_batches(batches, 1, epoch)] for epoch in (1, 2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == [batch.tolist() for batch in batches]


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_every_sample_stands_in_one_batch(multiple: int) -> None:
    lengths = np.random.default_rng(multiple).integers(1, 12, 64)
    batches = batch_by_size(np.arange(64), lengths, 30, 0, multiple)
    numbers = np.concatenate(batches).tolist()
    assert numbers == list(range(len(numbers)))
    assert all(len(batch) * lengths[batch].max() <= 30 for batch in batches)

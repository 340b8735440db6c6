"""fairseq's token blocks and what it makes of them, exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.data.store import Store, write_store
from app.data.token_blocks import BlockDataset, block_slices
from tests.golden.cases import claimed


def store(directory: Path, sentences: list[list[int]]) -> Store:
    with write_store(directory / "text.store", 1000) as add:
        add(np.array(sum(sentences, []), dtype=np.int64), np.array([len(row) for row in sentences]))
    return Store(directory / "text.store")


def blocks(
    text: Store, block_size: int, break_mode: str, target: str = "future", add_bos: bool = False
) -> BlockDataset:
    slices = block_slices(text.lengths, block_size, break_mode)
    return BlockDataset(text, slices, np.ones(len(slices)), target, 0, add_bos, {})


@pytest.mark.parametrize("case", claimed("data", "token_block"))
def test_token_blocks(case: Any, tmp_path: Path) -> None:
    text = store(tmp_path, case.spec["sentences"])
    for expected in case.spec["results"]:
        dataset = blocks(text, expected["block_size"], expected["break_mode"] or "none")
        assert dataset.slices.tolist() == expected["slice_indices"]
        assert dataset.source_lengths.tolist() == expected["sizes"]
        for i, item in enumerate(expected["items"]):
            if not expected["include_targets"]:
                assert rows(dataset, i, "target") == [item]
                continue
            source, target, past = item
            assert rows(dataset, i, "src_tokens") == [source]
            assert rows(dataset, i, "target") == [target]
            previous = blocks(text, expected["block_size"], expected["break_mode"] or "none", "past")
            assert rows(previous, i, "target") == [past[: len(target)]]  # fairseq's is one too long for one token


def rows(dataset: BlockDataset, sample: int, name: str) -> list[list[int]]:
    tokens: list[list[int]] = getattr(dataset.collate(np.array([sample])), name).tolist()
    return tokens


@pytest.mark.parametrize("case", claimed("data", "monolingual_collate"))
def test_collation(case: Any, tmp_path: Path) -> None:
    text = store(tmp_path, case.spec["sentences"])
    for expected in case.spec["results"]:
        targets = expected["target"] if len(expected["targets"]) > 1 else [expected["target"]]
        for kind, target in zip(expected["targets"], targets, strict=True):
            dataset = blocks(
                text, case.spec.get("block_size", 8), case.spec["break_mode"], kind, expected["add_bos_token"]
            )
            batch = dataset.collate(np.array(expected["id"]))
            assert batch.src_tokens.tolist() == batch.prev_output_tokens.tolist() == expected["src_tokens"]
            assert batch.src_lengths.tolist() == expected["src_lengths"]
            assert batch.target.tolist() == target
            assert batch.num_tokens == expected["ntokens"]


def test_context_is_seen_and_not_scored(tmp_path: Path) -> None:
    text = store(tmp_path, [[5, 6, 2], [7, 8, 9, 2]])
    slices = block_slices(text.lengths, 3, "none")
    batch = BlockDataset(text, slices, np.ones(3), "future", 2, False, {}).collate(np.arange(3))
    assert batch.src_tokens.tolist() == [[2, 5, 6, 1, 1], [5, 6, 2, 7, 8], [7, 8, 9, 1, 1]]
    assert batch.target.tolist() == [[5, 6, 2, 1, 1], [1, 1, 7, 8, 9], [1, 1, 2, 1, 1]]
    assert batch.num_tokens == 7

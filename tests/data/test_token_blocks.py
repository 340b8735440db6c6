"""Blocks of a text that is looked at in parts are those of the whole text."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.data import token_blocks
from app.data.store import Store, write_store
from app.data.token_blocks import BREAK_MODES, BlockDataset, block_slices, slices_of_rows


@given(lengths=st.lists(st.sampled_from([1, 1, 2, 3, 7, 20]), min_size=1, max_size=60), size=st.integers(1, 9))
@pytest.mark.parametrize("mode", BREAK_MODES)
def test_parts_do_not_show(tmp_path_factory: pytest.TempPathFactory, mode: str, lengths: list[int], size: int) -> None:
    path = tmp_path_factory.mktemp("blocks") / "x.store"
    with write_store(path, 100) as add:
        add(np.zeros(sum(lengths), np.int64), np.array(lengths))
    first = len(lengths) // 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_blocks, "ROWS", 1)
        found = slices_of_rows(Store(path), first, len(lengths), size, mode)
    expected = block_slices(np.array(lengths[first:]), size, mode) + sum(lengths[:first])
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("add_bos", [False, True])
def test_blocks_that_are_read_are_those_that_are_mapped(tmp_path: Path, add_bos: bool) -> None:
    lengths = np.random.default_rng(1).integers(1, 6, 100)
    with write_store(tmp_path / "x.store", 1000) as add:
        add(np.arange(lengths.sum()), lengths)
    mapped = Store(tmp_path / "x.store")
    slices = slices_of_rows(mapped, 0, 100, 7, "none")
    ours, read = (
        BlockDataset(each, slices, np.ones(len(slices)), "past", 2, add_bos, {}) for each in (mapped, mapped.unmapped())
    )
    samples = np.random.default_rng(2).permutation(len(slices))
    for one, other in zip(vars(ours.collate(samples)).values(), vars(read.collate(samples)).values(), strict=True):
        assert torch.as_tensor(one).tolist() == torch.as_tensor(other).tolist()

"""Blocks of a text that is looked at in parts are those of the whole text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data import token_blocks
from app.data.store import Store, write_store
from app.data.token_blocks import BREAK_MODES, block_slices, slices_of_rows


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

"""Rows that are read are those that are mapped, and take no memory of their file."""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.dataset import PairDataset
from app.data.indexed import IndexedStore, write_indexed
from app.data.iterator import EpochIterator
from app.data.large import LargeWeights
from app.data.pair_rows import EveryRow, PairRows
from app.data.store import Store, write_store
from app.data.unmapped import Unmapped
from app.data.windows import Span
from app.errors import DataError
from tests.data.test_large import CFG

COUNT = 10


@pytest.fixture(scope="module", params=["store", "indexed"])
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Rows of 0 to 6 ids, mapped and read."""
    path, lengths = tmp_path_factory.mktemp("rows") / "x.idx", np.array([3, 0, 1, 6, 2, 2, 0, 5, 1, 1])
    with (write_store if request.param == "store" else write_indexed)(path, 300) as add:
        add(np.arange(lengths.sum()), lengths)
    mapped = Store(path) if request.param == "store" else IndexedStore(path, 300)
    return mapped, mapped.unmapped()


@given(rows=st.lists(st.integers(0, COUNT - 1), max_size=30))
def test_any_rows_are_those_that_are_mapped(stores: tuple[Store, Store], rows: list[int]) -> None:
    numbers = np.array(rows, dtype=np.int64)
    for mapped, read in zip(stores[0].padded(numbers, 7), stores[1].padded(numbers, 7), strict=True):
        assert mapped.tolist() == read.tolist()
    assert stores[0].lengths_of(numbers).tolist() == stores[1].lengths_of(numbers).tolist()


def test_another_process_reads_the_same_rows(stores: tuple[Store, Store]) -> None:
    expected = stores[0].padded(np.arange(COUNT), 7)[0].tolist()
    for store in stores:
        again = pickle.loads(pickle.dumps(store))
        assert isinstance(again.take, Unmapped) == isinstance(store.take, Unmapped)
        assert again.padded(np.arange(COUNT), 7)[0].tolist() == expected


def test_a_file_that_becomes_shorter_is_told(tmp_path: Path) -> None:
    with write_store(tmp_path / "x.store", 300) as add:
        add(np.arange(9), np.full(3, 3))
    read = Store(tmp_path / "x.store").unmapped()
    assert read.lengths_of(np.array([0, 2])).tolist() == [3, 3]
    with (tmp_path / "x.store").open("r+b") as file:
        file.truncate(60)
    with pytest.raises(DataError, match="x.store: became shorter while it was read"):
        read.lengths_of(np.array([0, 2]))


def mapped_kib(directory: Path) -> int:
    """What this process holds of the files in a directory through maps."""
    kib, is_there = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            is_there = str(directory) in line
        elif is_there and line.startswith("Rss:"):
            kib += int(line.split()[1])
    return kib


def test_an_epoch_maps_nothing(tmp_path: Path) -> None:
    """All rows of 2 x 16 MB are counted, and windows of them are batched."""
    for name in ("source", "target"):
        with write_store(tmp_path / name, 256) as add:
            add(np.tile(np.arange(240, dtype=np.uint8), 1 << 16), np.full(1 << 16, 240))
    source, target = (Store(tmp_path / name).unmapped() for name in ("source", "target"))
    pairs = PairRows(source, target, 1000, 1000)
    weights = LargeWeights((Span(0, len(source), 1.0),), pairs.used)
    dataset = PairDataset(source, target, EveryRow(pairs.tally()), weights, {})
    batches = EpochIterator(dataset, replace(CFG, max_tokens=1000), 1)
    for _, batch in zip(range(100), batches):
        assert batch.target.size(1) == 240
    assert batches.padding == 0
    assert mapped_kib(tmp_path) == 0
    assert source.ids.sum() > 0
    assert mapped_kib(tmp_path) > 15_000

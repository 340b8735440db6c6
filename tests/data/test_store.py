"""The store of encoded sentences, the cache around it, and the processes that fill it."""

import multiprocessing
import os
import resource
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data import cache
from app.data.cache import cached, digest, key
from app.data.parallel import parallel_map
from app.data.store import Store, id_type, write_store
from app.errors import DataError, StorageError, WorkerError


def write(path: Path, rows: list[list[int]], vocabulary_size: int = 1000) -> Path:
    with write_store(path, vocabulary_size) as add:
        for chunk in (rows[:2], rows[2:]):
            add(np.array(sum(chunk, []), dtype=np.int64), np.array([len(row) for row in chunk]))
    return path


@given(rows=st.lists(st.lists(st.integers(0, 70_000), max_size=5)))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]]) -> None:
    store = Store(write(tmp_path_factory.mktemp("store") / "x.store", rows, 70_001))
    assert [store[i].tolist() for i in range(len(store))] == rows
    assert store.lengths.tolist() == [len(row) for row in rows]


@pytest.mark.parametrize(("size", "itemsize"), [(1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_ids_take_the_fewest_bytes(tmp_path: Path, size: int, itemsize: int) -> None:
    assert id_type(size).itemsize == itemsize
    store = Store(write(tmp_path / "x.store", [[size - 1], [0, size - 1]], size))
    assert (store[0].tolist(), store[1].tolist()) == ([size - 1], [0, size - 1])
    assert (tmp_path / "x.store").stat().st_size == 32 + 8 * -(-3 * itemsize // 8) + 8 * 3


def test_padded_rows(tmp_path: Path) -> None:
    store = Store(write(tmp_path / "x.store", [[5, 2], [7, 8, 9, 2], [2]]))
    ids, lengths = store.padded(np.array([2, 1, 0, 0]), pad=1)
    assert ids.tolist() == [[2, 1, 1, 1], [7, 8, 9, 2], [5, 2, 1, 1], [5, 2, 1, 1]]
    assert lengths.tolist() == [1, 4, 2, 2]


@pytest.mark.fault("F12")
def test_damaged_store_is_refused_when_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "x.store", [[5, 2], [7, 8, 9, 2]])
    whole = path.read_bytes()
    damages = {
        whole[:-1]: "has 71 bytes where its header says 72",
        whole + b"x": "has 73 bytes where its header says 72",
        whole[: len(whole) // 2]: "its header says 72",
        b"notstore" + whole[8:]: "not a store of encoded sentences",
        b"": "not a store",
        whole[:8] + b"\x09" + whole[9:]: "store version 9, this program reads 1",
        whole[:16] + b"\x03" + whole[17:]: "where its header says",
    }
    for content, message in damages.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            Store(path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Store(path)


def test_unfinished_store_is_no_store(tmp_path: Path) -> None:
    def interrupted() -> None:
        with write_store(tmp_path / "x.store", 10) as add:
            add(np.array([1, 2]), np.array([2]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(DataError, match="not a store"):
        Store(tmp_path / "x.store")


def test_key_follows_every_setting() -> None:
    assert key(a=1, b=[2]) == key(b=[2], a=1)
    assert len({key(a=1), key(a=2), key(a="1"), key(b=1), key(a=[1])}) == 5


def test_digest_sees_every_change(tmp_path: Path) -> None:
    path = tmp_path / "train.en"
    seen = set()
    for content in ("a", "b", "c", "c\n"):  # same size, within the clock's grain
        path.write_text(content)
        seen.add(digest(path, tmp_path / "cache"))
        seen.add(digest(path, tmp_path / "cache"))
    assert len(seen) == 4


def test_digest_of_an_old_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RACY_SECONDS", -1)
    path = tmp_path / "train.en"
    path.write_text("a")
    first = digest(path, tmp_path / "cache")
    monkeypatch.setattr(cache.hashlib, "file_digest", None)
    assert digest(path, tmp_path / "cache") == first


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RACY_SECONDS", -1)
    path = tmp_path / "train.en"
    path.write_text("a")
    with pytest.raises(StorageError, match=r"train\.en/digests/.* cannot be written .*; make room or set cache_dir"):
        digest(path, cache_dir=path)  # a file cannot hold anything


def test_cached_builds_once(tmp_path: Path) -> None:
    built = []

    def build(directory: Path) -> None:
        built.append(directory)
        (directory / "x").write_text("1")

    for _ in range(3):
        assert (cached(tmp_path / "a", build) / "x").read_text() == "1"
    assert len(built) == 1


def test_two_that_start_at_once_build_once(tmp_path: Path) -> None:
    built = []

    def build(directory: Path) -> None:
        built.append(directory)
        time.sleep(0.05)

    threads = [threading.Thread(target=cached, args=(tmp_path / "a", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(directory: Path) -> None:
        (directory / "half").write_text("1")
        raise DataError("bad")

    (tmp_path / ".a.1.dead.tmp").mkdir()  # of a process that was killed
    with pytest.raises(DataError):
        cached(tmp_path / "a", build)
    assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]


def _fill_with_little_room(directory: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        cached(directory, lambda temporary: write(temporary / "x.store", [[1] * 100] * 1000) and None)
    except StorageError as error:
        os._exit(5 if str(directory) in str(error) and not list(directory.parent.glob(".*.tmp")) else 1)


@pytest.mark.fault("F09")
def test_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_fill_with_little_room, args=(tmp_path / "a",))
    process.start()
    process.join()
    assert process.exitcode == 5


def _double(item: int) -> int:
    if item < 0:
        os._exit(1)
    return 2 * item


def test_parallel_map_keeps_order_and_tells_of_dead_workers() -> None:
    assert list(parallel_map(_double, range(20), num_workers=2)) == list(range(0, 40, 2))
    assert list(parallel_map(_double, [], num_workers=2)) == []
    with pytest.raises(WorkerError, match="a process that encodes text died"):
        list(parallel_map(_double, [1, 1, 1, -1, 1], num_workers=2))


def test_parallel_map_reads_little_ahead() -> None:
    taken = []
    results = parallel_map(str, (taken.append(i) or i for i in range(1000)), num_workers=2)
    assert next(results) == "0"
    assert len(taken) <= 8
    results.close()

"""fairseq's binarised data: what is written comes back, and files that are not what they say are refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.corpus import binarised_pair, find_file, find_pair, find_splits, find_texts
from app.data.indexed import HEADER, MAGIC, TYPES, IndexedStore, write_indexed
from app.errors import DataError

ROWS = [[5, 2], [7, 8, 9, 2], [2]]


def write(path: Path, rows: list[list[int]], vocabulary_size: int = 1000) -> Path:
    with write_indexed(path, vocabulary_size) as add:
        for chunk in (rows[:2], rows[2:]):
            add(np.array(sum(chunk, []), dtype=np.int64), np.array([len(row) for row in chunk], dtype=np.int64))
    return path


@given(rows=st.lists(st.lists(st.integers(0, 70_000), max_size=5)))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]]) -> None:
    store = IndexedStore(write(tmp_path_factory.mktemp("bin") / "x.idx", rows, 70_001), 70_001)
    assert [store[i].tolist() for i in range(len(store))] == rows
    assert store.lengths.tolist() == [len(row) for row in rows]


def test_every_type_of_id_is_read(tmp_path: Path) -> None:
    for code, name in TYPES.items():
        dtype = np.dtype(name)
        sizes, places = [len(row) for row in ROWS], [0, 2 * dtype.itemsize, 6 * dtype.itemsize]
        index = HEADER.pack(MAGIC, 1, code, 3) + struct.pack("<3i", *sizes) + struct.pack("<3q", *places)
        (tmp_path / "x.idx").write_bytes(index)
        (tmp_path / "x.bin").write_bytes(np.array(sum(ROWS, []), dtype=dtype).tobytes())
        store = IndexedStore(tmp_path / "x.idx", 10)
        assert [store[i].tolist() for i in range(3)] == ROWS
        padded, lengths = store.padded(np.array([1, 2]), pad=1)
        assert padded.tolist() == [[7, 8, 9, 2], [2, 1, 1, 1]]
        assert lengths.tolist() == [4, 1]


def changed(path: Path, at: int, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] = byte
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: changed(d / "x.idx", 0, 0), r"starts with b'.x00MIDIDX"),
        (lambda d: changed(d / "x.idx", 9, 7), "version 7 with ids of type 8; read are version 1"),
        (lambda d: changed(d / "x.idx", 17, 99), "version 1 with ids of type 99"),
        (lambda d: changed(d / "x.idx", 18, 4), "has 62 bytes where 4 sentences take 74"),
        (lambda d: changed(d / "x.idx", 26, 3), "do not stand one after another"),
        (lambda d: (d / "x.bin").write_bytes(b"\0" * 13), "x.bin: has 13 bytes where x.idx says 14"),
        (lambda d: (d / "x.bin").unlink(), "x.bin: is missing beside x.idx"),
        (lambda d: (d / "x.idx").write_bytes(b"TNTIDX\0\0" + bytes(40)), "cached or lazy"),
        (lambda d: changed(d / "x.bin", 1, 9), "has id 2309 where the vocabulary has 1000 entries"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, damage, message: str) -> None:
    path = write(tmp_path / "x.idx", ROWS)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        IndexedStore(path, 1000)


def test_names_say_split_pair_and_language(tmp_path: Path) -> None:
    for name in ("train.fr-en.fr", "train.fr-en.en", "valid1.fr-en.fr", "valid1.fr-en.en"):
        write(tmp_path / f"{name}.idx", ROWS)
    (tmp_path / "dict.fr.txt").write_text("a 1\n")
    assert find_splits(tmp_path) == {"train": {"fr", "en"}, "valid1": {"fr", "en"}}
    assert binarised_pair(tmp_path) == ["fr", "en"]
    for langs in (("fr", "en"), ("en", "fr")):
        pair = find_pair(tmp_path, "train", *langs)
        assert pair is not None
        assert [path.name for path in pair] == [f"train.fr-en.{lang}.idx" for lang in langs]
    write(tmp_path / "train.de-en.en.idx", ROWS)
    with pytest.raises(DataError, match="en of train stands in train.de-en.en.idx, train.fr-en.en.idx"):
        find_file(tmp_path, "train", "en")


def test_one_text_has_the_language_idx(tmp_path: Path) -> None:
    write(tmp_path / "train.idx", ROWS)
    assert find_texts(tmp_path) == {"train": {"idx"}}
    assert find_file(tmp_path, "train", "idx") == tmp_path / "train.idx"
    assert binarised_pair(tmp_path) == []

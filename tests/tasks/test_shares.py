"""Several jobs that encode a share each write the store that one job writes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.store import Store
from app.data.vocabulary import Vocabulary
from app.interfaces import Shard
from app.tasks import preparation
from app.tasks.preparation import Prepared, prepare
from app.tasks.shares import MissingSharesError, chunk_order, encoding
from app.tasks.text import Text
from app.tokenizers.word import Word, WordConfig


@given(st.integers(1, 5), st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=3))
def test_chunks_are_put_back_in_the_order_of_the_text(world_size: int, files: list[list[int]]) -> None:
    shares = [[chunks[rank::world_size] for chunks in files] for rank in range(world_size)]
    got = list(chunk_order(shares))
    assert [rows for _, rows in got] == [rows for chunks in files for rows in chunks]
    assert [rank for rank, _ in got] == [number % world_size for chunks in files for number in range(len(chunks))]


@pytest.fixture
def corpus(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Two directories of parallel text, with bad lines: a whole chunk of them too."""
    files = []
    for name, count in (("a", 53), ("b", 20)):
        (tmp_path / name).mkdir()
        paths = (tmp_path / name / "train.xx", tmp_path / name / "train.yy")
        for path in paths:
            lines = [" ".join("abcdefgh"[: 1 + (i * 7 + ord(path.suffix[-1])) % 8]) for i in range(count)]
            path.write_text("".join(line + "\n" for line in lines))
        files.append(paths)
    bad = files[0][0].read_bytes().split(b"\n")
    for number in (3, 10, 11, 12, 13, 14):
        bad[number] = b"\xff"
    files[0][0].write_bytes(b"\n".join(bad))
    return files


def prepared(files: list[tuple[Path, Path]], cache: Path, share: Shard = Shard(0, 1)) -> Prepared:
    text = Text(Word(WordConfig()), Vocabulary.from_counts({f"▁{letter}": 1 for letter in "abcdefgh"}))
    with encoding(share):
        return prepare(files, {"source": text, "target": text}, "skip", 1, cache)


def content(store: Store) -> bytes:
    return store.path.read_bytes()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shares_become_the_store_of_one_job(
    order: tuple[int, ...], corpus: list[tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "CHUNK", 5)
    alone = prepared(corpus, tmp_path / "alone")
    for rank in order[:-1]:
        with pytest.raises(MissingSharesError, match="of 3 shares are not there yet"):
            prepared(corpus, tmp_path / "shared", Shard(rank, 3))
    together = prepared(corpus, tmp_path / "shared", Shard(order[-1], 3))
    assert [content(store) for store in together.stores] == [content(store) for store in alone.stores]
    assert (together.rows, together.bad_lines) == (alone.rows, alone.bad_lines) == ([47, 20], 6)
    assert not list((tmp_path / "shared").glob("rows*share*"))
    again = prepared(corpus, tmp_path / "shared", Shard(1, 3))  # what is done is not done again
    assert np.array_equal(again.stores[0].offsets, alone.stores[0].offsets)

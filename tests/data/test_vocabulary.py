"""Vocabulary: fairseq's ids, order and file."""

from pathlib import Path

import numpy as np
import pytest

from app.data.vocabulary import Vocabulary
from app.errors import DataError
from tests.golden.cases import Case, claimed


def test_specials_come_first_and_are_not_in_the_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["a", "b"], [5, 3])
    vocabulary.save(tmp_path / "dict.txt")
    assert (tmp_path / "dict.txt").read_text() == "a 5\nb 3\n"
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "?"]
    assert [vocabulary.index(piece) for piece in pieces] == [0, 1, 2, 3, 4, 5, 3]


def test_encode_appends_eos_and_decode_leaves_it_out() -> None:
    vocabulary = Vocabulary(["a", "b"], [5, 3])
    ids = vocabulary.encode(["b", "a", "c"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [5, 4, 3, 2]
    assert vocabulary.decode(ids) == ["b", "a", "<unk>"]
    assert vocabulary.encode([], append_eos=False).tolist() == []


def test_file_may_hold_any_piece_without_a_space_or_newline(tmp_path: Path) -> None:
    pieces = ["\t", "\u2028", "\x85", "\r", "▁", "#fairseq:overwrite", "é", "\x00"]
    saved = Vocabulary(pieces, list(range(8)))
    saved.save(tmp_path / "dict.txt")
    assert Vocabulary.load(tmp_path / "dict.txt") == saved
    assert list(tmp_path.iterdir()) == [tmp_path / "dict.txt"]


def test_piece_may_stand_twice_where_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "dict.txt"
    path.write_text("a 5\nb 3\na 2 #fairseq:overwrite\n")
    vocabulary = Vocabulary.load(path)
    assert (len(vocabulary), vocabulary.index("a")) == (7, 6)
    vocabulary.save(path)
    assert path.read_text() == "a 5\nb 3\na 2 #fairseq:overwrite\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 5\nb\n", r"dict.txt:2: 'b' is not `piece count`"),
        (b"a 5\n\nb 3\n", "dict.txt:2"),
        (b"a five\n", "dict.txt:1"),
        (b"a 5\na 3\n", "dict.txt:2: piece 'a' stands twice"),
        (b"a 5\n<pad> 3\n", "dict.txt:2: piece '<pad>' stands twice"),
        (b"a 5\n\xe9 3\n", "dict.txt: not UTF-8 at byte 4"),
    ],
)
def test_damaged_file_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "dict.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        Vocabulary.load(tmp_path / "dict.txt")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dict.txt: cannot be read \(No such file"):
        Vocabulary.load(tmp_path / "dict.txt")


@pytest.mark.parametrize("case", claimed("data", "dictionary_encode*"))
def test_encodes_as_fairseq(case: Case) -> None:
    vocabulary = Vocabulary.load(case.path.with_name(case.spec["files"][0]))
    assert vocabulary.pieces == case.spec["symbols"]
    for line in case.spec["lines"]:
        assert vocabulary.encode(line["tokens"]).tolist() == line["ids"]
        assert vocabulary.encode(line["tokens"], append_eos=False).tolist() == line["ids_without_eos"]
        assert " ".join(vocabulary.decode(line["ids"])) == line["string"]


@pytest.mark.parametrize("case", claimed("data", "dictionary_finalize*"))
def test_orders_cuts_and_pads_as_fairseq(case: Case) -> None:
    for result in case.spec["results"]:
        vocabulary = Vocabulary.from_counts(
            dict(case.spec["counts_in_order_of_first_appearance"]),
            result["threshold"],
            result["nwords"],
            result["padding_factor"],
        )
        assert vocabulary.pieces == result["symbols"]
        assert vocabulary.counts == result["counts"]


def test_symbols_come_last_and_count_in_the_size() -> None:
    vocabulary = Vocabulary.from_counts({"a": 3, "<mask>": 2, "b": 1}, padding_factor=8, symbols=["<mask>"])
    assert vocabulary.pieces[4:] == ["a", "b", "madeupword0000", "<mask>"]
    assert vocabulary.counts[4:] == [3, 1, 0, 1]

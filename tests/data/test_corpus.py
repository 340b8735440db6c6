"""Reading text: what a line is, which lines are refused, and that nothing shifts a parallel corpus."""

import gzip
import logging
from pathlib import Path

import pytest

from app.data import corpus
from app.data.corpus import TextFile, find_file, find_pair, find_splits, read_together
from app.errors import DataError


def read(path: Path, content: bytes, on_bad_line: str = "error") -> list[str | None]:
    path.write_bytes(content)
    return list(TextFile(path, on_bad_line))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb", ["a", "b"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\rb\n", ["a\rb"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        ("a\u2028b\x85c\x0bd\x0ce\x1cf\n".encode(), ["a\u2028b\x85c\x0bd\x0ce\x1cf"]),
        (b"x" * 1_000_000 + b"\n", ["x" * 1_000_000]),
    ],
)
def test_lines_end_at_newlines_only(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    assert read(tmp_path / "train.en", content) == lines


def test_compressed_files_are_read_alike(tmp_path: Path) -> None:
    assert read(tmp_path / "train.en.gz", gzip.compress(b"a\r\n\xc3\xa9\n")) == ["a", "é"]


def test_carriage_returns_are_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read(tmp_path / "train.en", b"a\r\nb\nc\r\n")
    assert "2 lines end in CR LF" in caplog.text


BAD = {
    b"ok\ncaf\xe9 x\n": r"train.en: line 2 is not UTF-8 \(byte 0xe9 at column 4\); .*task.on_bad_line=skip",
    b"a\0b\n": "train.en: line 1 has a NUL character at column 2",
}


@pytest.mark.parametrize(("content", "message"), BAD.items())
def test_bad_line_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "train.en", content)


def test_bad_line_is_left_out_or_replaced_where_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = b"ok\ncaf\xe9\na\0b\nok\n"
    assert read(tmp_path / "train.en", content, "skip") == ["ok", None, None, "ok"]
    assert "line 2 is not UTF-8" in caplog.text
    assert read(tmp_path / "train.en", content, "replace") == ["ok", "caf\ufffd", "a\ufffdb", "ok"]


def test_endless_line_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LONGEST_LINE", 10)
    assert read(tmp_path / "train.en", b"short\n" + b"x" * 35 + b"\nshort\n", "skip") == ["short", None, "short"]
    assert read(tmp_path / "train.en", b"123456789\n1234567890\n", "skip") == ["123456789", None]
    with pytest.raises(DataError, match="line 1 is longer than 16 MiB"):
        read(tmp_path / "train.en", b"x" * 35)


def test_damaged_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train.en.gz: cannot be read after line \d+"):
        read(tmp_path / "train.en.gz", gzip.compress(b"a\n" * 10_000)[:-12])


def pairs(directory: Path, source: bytes, target: bytes, on_bad_line: str = "error") -> list[tuple[str, str] | None]:
    (directory / "train.en").write_bytes(source)
    (directory / "train.de").write_bytes(target)
    return list(
        read_together(TextFile(directory / "train.en", on_bad_line), TextFile(directory / "train.de", on_bad_line))
    )


def test_pairs_stay_together(tmp_path: Path) -> None:
    assert pairs(tmp_path, b"a\nb", b"A\nB\n") == [("a", "A"), ("b", "B")]
    assert pairs(tmp_path, b"a\n\xff\nc\n", b"A\nB\n\xff\n", "skip") == [("a", "A"), None, None]


@pytest.mark.parametrize(("source", "target"), [(b"a\nb\nc\n", b"A\n"), (b"a\n", b"A\nB\nC\n")])
def test_unequal_files_are_refused_with_both_counts(tmp_path: Path, source: bytes, target: bytes) -> None:
    counts = (source.count(b"\n"), target.count(b"\n"))
    with pytest.raises(DataError, match=r"train.en has {} lines and .*train.de has {}".format(*counts)):
        pairs(tmp_path, source, target)


def test_files_of_a_split_are_found(tmp_path: Path) -> None:
    for name in ("train.en", "train.de.gz", "valid.en", "README.md", "new.test.en.gz", "new.test.de"):
        (tmp_path / name).touch()
    assert find_splits(tmp_path) == {"new.test": {"de", "en"}, "train": {"de", "en"}}
    assert find_pair(tmp_path, "train", "en", "de") == (tmp_path / "train.en", tmp_path / "train.de.gz")
    assert find_pair(tmp_path, "test", "en", "de") is None
    with pytest.raises(DataError, match=r"valid.de is missing beside .*valid.en"):
        find_pair(tmp_path, "valid", "en", "de")
    (tmp_path / "train.de").touch()
    with pytest.raises(DataError, match=r"train.de: stands beside train.de.gz"):
        find_file(tmp_path, "train", "de")

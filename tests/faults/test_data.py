"""Text with every fault that text has, through preparation, training and translation."""

import logging
from pathlib import Path

import pytest

from app.errors import DataError
from tests.faults.victims import Victim
from tests.runs import configured, train, write_corpus

SHORT = ["trainer.max_update=3", "trainer.validate_interval=0"]
ODD = {  # name: a line of bytes that is text, or the column of its fault
    "line separator": "ba\u2028be\u0085bi\x0b".encode(),
    "carriage return": b"ba be\r",
    "empty": b"",
    "a million characters": b"ba " * 333_334,
}
BAD = {"not UTF-8": b"ba \xe9", "NUL": b"ba \0 be"}


def corpus(directory: Path, *lines: bytes) -> Path:
    """The tiny corpus with these lines in front of the source, a byte order mark first and no newline last."""
    write_corpus(directory, sizes=(60, 10, 10))
    source, target = directory / "train.xx", directory / "train.yy"
    more = b"".join(line + b"\n" for line in lines)
    source.write_bytes(b"\xef\xbb\xbf" + more + source.read_bytes().removesuffix(b"\n"))
    target.write_bytes(b"BA\n" * len(lines) + target.read_bytes())
    return directory


@pytest.mark.fault("F13")
def test_odd_lines_shift_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(tmp_path, *SHORT, corpus=corpus(tmp_path / "corpus", *ODD.values()))
    (told,) = [text for text in caplog.messages if text.startswith("train: ")]
    assert told.startswith("train: 62 pairs")  # all but the empty and the long line
    assert "empty" in told
    assert "1 lines end in CR LF" in caplog.text


@pytest.mark.fault("F13")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_an_error_with_its_place_or_is_counted(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = corpus(tmp_path / "corpus", b"ba", BAD[name])
    with pytest.raises(DataError, match=rf"train.xx: line 2 (is|has) .*{name}.* column 4") as bad:
        train(tmp_path, *SHORT, corpus=text)
    assert bad.value.exit_code == 3
    caplog.set_level(logging.INFO)
    train(tmp_path, *SHORT, "task.on_bad_line=skip", corpus=text)
    assert "train: 61 pairs" in caplog.text


@pytest.mark.fault("F13")
def test_files_of_different_length_are_refused_with_both(tmp_path: Path) -> None:
    text = corpus(tmp_path / "corpus")
    with (text / "train.yy").open("a") as target:
        target.write("BA\n")
    with pytest.raises(DataError, match=r"train.xx has 60 lines and .*train.yy has 61"):
        train(tmp_path, *SHORT, corpus=text)


@pytest.mark.fault("F13")
def test_translations_stay_in_their_lines(tmp_path: Path) -> None:
    from app.generate import run

    run_dir = train(tmp_path, *SHORT, corpus=corpus(tmp_path / "corpus"))
    lines = [b"ba", ODD["line separator"], b"", ODD["carriage return"], b"be"]
    (tmp_path / "input").write_bytes(b"\n".join(lines))
    given = [f"checkpoint={run_dir}", f"input={tmp_path / 'input'}", f"output_file={tmp_path / 'output'}"]
    run(*configured([*given, "search.max_len_b=5"], "generate"))
    output = (tmp_path / "output").read_bytes()
    assert output.count(b"\n") == len(lines)
    assert output.split(b"\n")[2] == b""


@pytest.mark.fault("F12")
def test_prepared_data_that_is_cut_is_refused_with_exit_code_3(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "run", *SHORT)
    victim.here()
    stores = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size > 100]
    store = next(path for path in stores if path.read_bytes().startswith(b"seqwstor"))
    store.write_bytes(store.read_bytes()[:-1])
    size = store.stat().st_size
    code, err = Victim(tmp_path / "again", *SHORT).run()
    assert code == 3
    assert f"{store}: has {size} bytes where its header says {size + 1}; remove " in err

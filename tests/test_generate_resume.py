"""`app.generate` goes on after a kill, and translates what is too long in parts."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import generate
from app.errors import ConfigError, DataError
from app.inference import one_of_parts, parts_of, translated
from app.interfaces import Translation
from app.lines import whole_lines
from tests.runs import configured, train


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("resume"), "trainer.max_update=30", "trainer.validate_interval=0")


def generated(run_dir: Path, output: Path, *overrides: str) -> float | None:
    given = [f"checkpoint={run_dir}", f"output_file={output}", "num_threads=1", "search.max_len_b=9", *overrides]
    return generate.run(*configured([*given, "buffer_size=3"], "generate"))


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_it_goes_on_where_the_whole_lines_end(run_dir: Path, tmp_path: Path, form: str) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    bleu = generated(run_dir, whole, f"output={form}")
    lines = whole.read_text().splitlines(keepends=True)
    broken.write_text("".join(lines[:7]) + lines[7][: len(lines[7]) // 2])
    assert generated(run_dir, broken, f"output={form}", "resume=true") == pytest.approx(bleu)
    if form == "text":
        assert broken.read_text() == whole.read_text()
    else:
        found, expected = ([json.loads(line) for line in path.read_text().splitlines()] for path in (broken, whole))
        assert [row["id"] for row in found] == list(range(20))
        assert [row["translations"][0]["text"] for row in found] == [row["translations"][0]["text"] for row in expected]


def test_finished_and_absent_files_are_no_trouble(run_dir: Path, tmp_path: Path) -> None:
    generated(run_dir, tmp_path / "out", "resume=true")
    done = (tmp_path / "out").read_bytes()
    generated(run_dir, tmp_path / "out", "resume=true")
    assert (tmp_path / "out").read_bytes() == done


def test_an_output_of_another_input_is_told(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("\n" * 50)
    with pytest.raises(DataError, match="out: holds 50 lines, more than the 20 of the input"):
        generated(run_dir, tmp_path / "out", "resume=true")
    with pytest.raises(ConfigError, match="resume=true: needs output_file, and output=text or jsonl"):
        generated(run_dir, tmp_path / "out", "resume=true", "output=fairseq")


@pytest.mark.parametrize(
    ("text", "lines", "left"), [("", 0, ""), ("a", 0, ""), ("a\nb\nc", 2, "a\nb\n"), ("\n\n", 2, "\n\n")]
)
def test_half_a_line_is_cut_off(tmp_path: Path, text: str, lines: int, left: str) -> None:
    (tmp_path / "out").write_text(text)
    assert whole_lines(str(tmp_path / "out")) == lines
    assert (tmp_path / "out").read_text() == left
    assert whole_lines(str(tmp_path / "absent")) == 0


class Copying:
    """Gives a line back, word by word; one of more than four words is too long."""

    def too_long(self, lines: list[str]) -> list[int]:
        return [number for number, line in enumerate(lines) if len(line.split()) > 4]

    def generate(self, lines: list[str]) -> list[list[Translation]]:
        assert not self.too_long(lines)
        each = [Translation(line, line.split(), -1.0, [-1.0] * len(line.split()), line.split()) for line in lines]
        return [[best, best] for best in each]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("a b c d", ["a b c d"]),
        ("a b. c d e f", ["a b. ", "c d e f"]),
        ("a. b, c d, e", ["a.", "b, c d, e"]),
        ("a b, c d e", ["a b,", "c d e"]),
        ("a, b c d e f g: h", ["a,", "b c d", "e f g:", "h"]),
        ('a "b c." d e', ['a "b c."', "d e"]),
        ("a - b c d", ["a -", "b c d"]),
        ("a b c d e f g h i", ["a b c d", "e f", "g h i"]),
        ("  a b c d e", ["a b ", "c d e"]),
    ],
)
def test_long_lines_are_cut_at_sentences_or_words(line: str, parts: list[str]) -> None:
    assert [part.strip() for part in parts_of(Copying(), line)] == [part.strip() for part in parts]


class OfFiveLetters(Copying):
    """A line of more than five characters is too long, spaces aside."""

    def too_long(self, lines: list[str]) -> list[int]:
        return [number for number, line in enumerate(lines) if len("".join(line.split())) > 5]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("犬が走る。猫も。", ["犬が走る。", "猫も。"]),
        ("犬、猫、鳥、魚", ["犬、猫、", "鳥、魚"]),
        ("「犬」。」猫が見る", ["「犬」。」", "猫が見る"]),
        ("क ख ग। घ ङ च", ["क ख ग।", "घ ङ च"]),
    ],
)
def test_other_scripts_have_sentences_too(line: str, parts: list[str]) -> None:
    assert [part.strip() for part in parts_of(OfFiveLetters(), line)] == parts


@settings(deadline=None, max_examples=200)
@given(st.text("ab .,;。、」 -\u2028\t\u00a0", max_size=40))
def test_nothing_is_lost_and_no_part_is_too_long(line: str) -> None:
    generator = OfFiveLetters()
    try:
        parts = list(parts_of(generator, line))
    except DataError:
        assert any(len(word) > 5 for word in line.split())
        return
    assert "".join("".join(parts).split()) == "".join(line.split())
    assert not generator.too_long(parts)
    assert len(parts) == 1 or all(part.strip() for part in parts)


def test_lines_with_phrases_are_not_split(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="long_lines=split: LexicallyConstrainedSearch cannot know which part"):
        generated(run_dir, tmp_path / "out", "search=lexically_constrained", "long_lines=split")


def test_parts_come_together_again_in_order() -> None:
    lines = ["a b", "a b c. d e f", "", "c"]
    found = translated(Copying(), lines, split=True)
    assert [best[0].text.split() for best in found] == [line.split() for line in lines]
    assert [len(best) for best in found] == [2, 1, 2, 2]
    assert found[1][0].score == pytest.approx(-1)
    assert found[1][0].pieces == lines[1].split()


def test_parts_without_scores_of_pieces_have_their_mean() -> None:
    parts = [Translation("a", ["a"], score, [], ["x"]) for score in (-1.0, -2.0)]
    assert one_of_parts(parts).score == -1.5


def test_one_word_that_is_too_long_is_refused(run_dir: Path, tmp_path: Path) -> None:
    class Never(Copying):
        def too_long(self, lines: list[str]) -> list[int]:
            return [number for number, line in enumerate(lines) if line]

    with pytest.raises(DataError, match="^line 2: 'abc'... is one word and too long"):
        translated(Never(), ["", "abc"], split=True)


def test_a_long_line_of_a_file_is_split_on_request(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("ba be\n" + "ba be. " * 50 + "\ngu\n")
    with pytest.raises(DataError, match="line 2"):
        generated(run_dir, tmp_path / "out", f"input={tmp_path / 'in'}")
    generated(run_dir, tmp_path / "out", f"input={tmp_path / 'in'}", "long_lines=split")
    assert len((tmp_path / "out").read_text().splitlines()) == 3

"""`python -m app.score`, as a user types it."""

import json
import subprocess
import sys

import pytest

from app.lines import opened_output, read_lines


def score(directory, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.score", *overrides]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "sys").write_text("a b c d\nthe u2028\u2028stays\n")
    (tmp_path / "ref").write_text("a b c e\nthe u2028\u2028stays\n")
    return tmp_path


def test_a_table_with_signatures(texts):
    done = score(texts, "sys=sys", "ref=ref", "scorer=[bleu,chrf,ter,wer]")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["bleu", "chrf", "ter", "wer"]
    assert "tok:13a|smooth:exp|version:2." in lines[0]
    assert lines[3].split()[1] == "14.29"


def test_a_better_system_is_told_from_its_baseline(texts):
    words = ["the cat sat on a mat", "dogs run in the park", "a man plays the guitar", "two birds fly over it"] * 6
    (texts / "good").write_text("".join(f"{line}\n" for line in words))
    (texts / "bad").write_text("".join(f"{line.replace('the', 'a').replace('in', 'on')}\n" for line in words))
    given = ["sys=good", "baseline=bad", "ref=good", "bootstrap_samples=100"]
    (bleu,) = json.loads(score(texts, *given, "scorer=[bleu]", "output=json").stdout)
    assert bleu["value"] == pytest.approx(100)
    assert bleu["baseline"] < 90
    assert bleu["p_value"] < 0.05
    done = score(texts, *given, "scorer=[exact_match]")
    assert (done.returncode, "scorer.exact_match: knows no baseline" in done.stderr) == (2, True)


def test_exact_match(texts):
    done = score(texts, "sys=sys", "ref=ref", "scorer=[exact_match]")
    assert done.stdout.startswith("exact_match  50.00  EM = 50.00 (1 of 2)")


def test_json_with_options(texts):
    done = score(texts, "sys=sys", "ref=ref", "scorer=[wer]", "scorer.wer.char_level=true", "output=json")
    (wer,) = json.loads(done.stdout)
    assert wer["name"] == "wer"
    assert wer["value"] == pytest.approx(100 * 1 / 22)
    assert "level:char" in wer["signature"]


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        (["sys=sys", "ref=absent"], 2, ["ref=absent: no such file"]),
        (["sys=sys", "ref=one"], 3, ["sys has 2 lines and one has 1"]),
        (["sys=nothing", "ref=nothing"], 3, ["nothing: is empty"]),
        (["sys=sys", "ref=ref", "scorer=null"], 2, ["scorer"]),
        (["sys=sys"], 2, ["ref: missing"]),
        (["sys=sys", "ref=ref", "scorer.bleu.tokenize=moses", "output=xml"], 2, ["tokenize=moses", "output=xml"]),
    ],
)
def test_faults_are_told_in_a_line(texts, overrides, code, words):
    (texts / "one").write_text("a\n")
    (texts / "nothing").write_text("")
    done = score(texts, *overrides)
    assert done.returncode == code
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_scoring_does_not_need_torch(texts):
    script = (
        "import sys; from app.score import main; sys.argv = ['score', 'sys=sys', 'ref=ref']; main(); "
        "sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=texts, check=False).returncode == 0


def test_a_line_that_is_not_text_is_kept(tmp_path):
    (tmp_path / "bad").write_bytes(b"fine\n\xff\xfe\nlast")
    assert list(read_lines(str(tmp_path / "bad"))) == ["fine", "\ufffd\ufffd", "last"]


def test_a_file_is_written_as_utf8_with_plain_line_ends(tmp_path):
    with opened_output(str(tmp_path / "out")) as out:
        out.write("ä\u2028b\n")
    assert (tmp_path / "out").read_bytes() == "ä\u2028b\n".encode()

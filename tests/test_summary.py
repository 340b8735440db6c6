"""The table at a run's end, and what it says to type next."""

import json

import pytest

from app.summary import conclude, summary
from tests.runs import checkpoint_config

BLEU = checkpoint_config(metric="bleu", mode="max")
LINES = [
    {"kind": "train", "num_updates": 50, "epoch": 1, "wps": 1000.0, "ups": 2.0, "padding": 0.02, "train_wall": 25.0},
    {"kind": "valid", "num_updates": 50, "epoch": 1, "loss": 3.0, "ppl": 8.0, "bleu": 30.5},
    {"kind": "train", "num_updates": 100, "epoch": 2, "wps": 3000.0, "ups": 4.0, "padding": 0.04, "train_wall": 3700.4},
    {"kind": "valid", "num_updates": 100, "epoch": 2, "loss": 2.5, "ppl": 6.0, "bleu": 30.25},
]


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "outputs" / "a-run-with-a-name-that-is-so-long-that-a-line-of-eighty-columns-cannot-hold-it"
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_the_rows(run_dir):
    rows = summary(run_dir, BLEU, 1234567)
    assert float(rows.pop("peak memory").split()[0]) > 0.01
    assert rows == {
        "run": str(run_dir),
        "parameters": "1,234,567",
        "updates": "100, the last in epoch 2",
        "training time": "1:01:40",
        "speed": "2,000 target tokens a second, 3.00 updates a second",
        "padding": "3.0% of all positions",
        "best bleu": "30.50 at update 50 (loss 3.00, ppl 8.00)",
    }


def test_a_run_that_logged_nothing_has_a_table_too(tmp_path):
    assert list(summary(tmp_path, BLEU, 10)) == ["run", "parameters", "peak memory"]


def test_the_next_commands_stand_on_whole_lines(run_dir, capfd):
    conclude(run_dir, BLEU, 10)
    out, err = capfd.readouterr()
    lines = (out + err).splitlines()
    name = run_dir.relative_to(run_dir.parent.parent)
    assert f"score      python -m app.generate checkpoint={name} split=test" in lines
    assert f"translate  python -m app.interactive checkpoint={name}" in lines
    assert (run_dir / "curves.svg").is_file()


def test_a_picture_that_cannot_be_drawn_is_only_a_warning(tmp_path, caplog, capfd):
    conclude(tmp_path, BLEU, 10)
    assert "no curves were drawn" in caplog.text
    assert "app.interactive" in "".join(capfd.readouterr())


def test_what_a_model_must_be_asked_with_is_said(run_dir, capfd):
    conclude(run_dir, BLEU, 10, refines=True, lang_pairs=["en-de", "de-en"])
    shown = "".join(capfd.readouterr()).splitlines()
    wanted = [line for line in shown if line.endswith(" search=iterative_refinement lang_pair=en-de")]
    assert [line.split()[0] for line in wanted] == ["score", "translate"]
    conclude(run_dir, BLEU, 10, lang_pairs=["en-de"])
    assert "lang_pair" not in "".join(capfd.readouterr())


def test_what_generates_no_text_is_measured(run_dir, capfd):
    conclude(run_dir, BLEU, 10, generates=False)
    shown = "".join(capfd.readouterr())
    assert f"app.evaluate checkpoint={run_dir.relative_to(run_dir.parent.parent)} split=test" in shown
    assert "app.generate" not in shown

"""Learning curves: pictures of one run or several, from their metrics."""

import builtins
import json
import subprocess
import sys

import pytest

from app.curves import draw_curves
from app.errors import DataError, UserError

pytest.importorskip("matplotlib", reason="pip install 'seqwright[plot]'")


@pytest.fixture
def write_run(tmp_path):
    def write(name, bleu=True):
        run_dir = tmp_path / name
        run_dir.mkdir(parents=True)
        lines = []
        for n in range(10, 101, 10):
            lines.append({"kind": "train", "num_updates": n, "nll_loss": 500 / n, "lr": n * 1e-5})
            if n % 50 == 0:
                lines.append(
                    {"kind": "valid", "num_updates": n, "nll_loss": 600 / n, **({"bleu": n / 3} if bleu else {})}
                )
        lines.append({"kind": "train", "num_updates": 110, "nll_loss": None, "lr": 1e-3})
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run_dir

    return write


def texts(svg):
    """The words of a picture: matplotlib notes them as comments beside their outlines."""
    return [line.strip()[5:-4] for line in svg.read_text().splitlines() if line.strip().startswith("<!-- ")]


def test_a_run_has_a_picture_with_its_best_values(write_run):
    run_dir = write_run("a_run")
    svg, png = draw_curves([run_dir], run_dir)
    assert png.read_bytes().startswith(b"\x89PNG")
    words = texts(svg)
    assert {"a_run", "train", "valid", "nll loss (bits per token)", "valid BLEU", "learning rate", "updates"} <= set(
        words
    )
    assert {"6.00", "33.33"} <= set(words)  # the best validation loss and BLEU


def test_what_was_not_measured_has_no_panel(write_run):
    run_dir = write_run("a_run", bleu=False)
    assert "valid BLEU" not in texts(draw_curves([run_dir], run_dir)[0])


def test_several_runs_are_compared_under_names_that_differ(write_run, tmp_path):
    runs = [write_run("sweep/lr=1/run"), write_run("sweep/lr=2/run", bleu=False)]
    words = texts(draw_curves(runs, tmp_path / "picture")[0])
    assert {"lr=1/run valid, best 6.00", "lr=2/run valid, best 6.00", "lr=1/run valid, best 33.33", "2 runs"} <= set(
        words
    )


def test_a_directory_without_metrics_is_named(tmp_path):
    with pytest.raises(DataError, match=r"metrics.jsonl: no metrics there"):
        draw_curves([tmp_path], tmp_path)


def test_without_matplotlib_the_extra_is_named(write_run, monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args)

    run_dir = write_run("a_run")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'seqwright\[plot\]'"):
        draw_curves([run_dir], tmp_path)


def test_the_command_prints_where_the_pictures_are(write_run, tmp_path):
    runs = [write_run("a"), write_run("b")]
    command = [sys.executable, "-m", "app.curves", *runs, tmp_path / "empty"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == DataError.exit_code
    ended = subprocess.run([*command[:-1], "--out", tmp_path], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(tmp_path / "curves.svg"), str(tmp_path / "curves.png")]

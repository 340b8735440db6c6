"""What is read of run directories."""

import fcntl
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DataError, Stopped
from app.reporting.page import columns
from app.reporting.runs import differing, read_runs, thinned
from app.runtime.outcome import noted, read_outcome
from tests.reporting.made_up import write_run, write_sweep


def test_a_row_says_result_time_and_speed(tmp_path: Path) -> None:
    write_run(tmp_path, "3e-4", seed=7)
    (run,) = read_runs([tmp_path])
    lines = [json.loads(line) for line in (tmp_path / run.name / "metrics.jsonl").read_text().splitlines()]
    assert run.name == "optimizer.lr=3e-4,seed=7"
    assert run.best == min(line["loss"] for line in lines if line["kind"] == "valid")
    assert run.metrics["bleu"] == pytest.approx(40 - 5 * run.best)
    assert (run.updates, run.hours) == (1000, pytest.approx(400 / 3600))
    assert run.speed is not None
    assert 4500 < run.speed < 5500
    assert run.settings["optimizer.lr"] == 3e-4
    assert [update for update, _, _ in run.curves["valid loss"]] == list(range(100, 1001, 100))
    assert run.curves["valid loss"][0][1] == pytest.approx(40 / 3600)


def test_the_best_of_a_score_is_the_highest(tmp_path: Path) -> None:
    config = write_run(tmp_path, "3e-4", seed=7) / "config.yaml"
    config.write_text(config.read_text().replace("metric: loss", "metric: bleu").replace("mode: min", "mode: max"))
    (run,) = read_runs([tmp_path])
    assert run.best == max(value for _, _, value in run.curves["valid bleu"])


def test_columns_are_what_was_varied_and_what_follows_stands_behind(tmp_path: Path) -> None:
    runs = read_runs([write_sweep(tmp_path, 6)])
    assert set(differing(runs)) == {"seed", "optimizer.lr", "batching.seed"}
    asked, others = columns(runs)
    assert set(asked) == {"seed", "optimizer.lr"}
    assert others == ["batching.seed"]


def test_states(tmp_path: Path) -> None:
    """Each state, as the files of a run tell it."""
    for seed, outcome in enumerate(("finished", "failed", "stopped", None, None)):
        write_run(tmp_path, "1e-4", seed, outcome=outcome)
    (tmp_path / "optimizer.lr=1e-4,seed=4" / "metrics.jsonl").unlink()
    running = write_run(tmp_path, "1e-4", 5, outcome=None)
    with (running / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        states = [run.state for run in read_runs([tmp_path])]
    assert states == ["finished", "failed", "stopped", "interrupted", "queued", "running"]
    assert read_runs([tmp_path])[5].state == "interrupted"


def test_a_run_that_is_being_written_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    metrics = write_run(tmp_path, "1e-4", 1) / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"kind": "train", "num_upd')
    assert read_runs([tmp_path])[0].updates == 1000


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no runs there \(no config.yaml\)"):
        read_runs([tmp_path])


def test_the_end_of_a_run_is_noted(tmp_path: Path) -> None:
    with noted(tmp_path):
        assert read_outcome(tmp_path) is None
    assert read_outcome(tmp_path) == {"state": "finished", "reason": ""}
    with pytest.raises(Stopped), noted(tmp_path):
        raise Stopped("by a signal", 15)
    assert read_outcome(tmp_path) == {"state": "stopped", "reason": "by a signal"}
    with pytest.raises(SystemExit), noted(tmp_path):
        raise SystemExit(-1)  # submitit, once it has had the job queued again
    assert read_outcome(tmp_path) == {"state": "stopped", "reason": "stopped by a signal"}
    with pytest.raises(ZeroDivisionError), noted(tmp_path):
        1 / 0  # noqa: B018
    assert read_outcome(tmp_path) == {"state": "failed", "reason": "ZeroDivisionError: division by zero"}


@given(st.lists(st.floats(-1e6, 1e6), max_size=300), st.integers(4, 60))
def test_thinned_curves_keep_their_ends_and_extremes(values: list[float], most: int) -> None:
    points = [(float(i), 0.0, value) for i, value in enumerate(values)]
    kept = thinned(points, most)
    assert len(kept) <= max(most, 4)
    assert kept == sorted(set(kept))
    assert set(kept) <= set(points)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert (min(p[2] for p in kept), max(p[2] for p in kept)) == (min(values), max(values))

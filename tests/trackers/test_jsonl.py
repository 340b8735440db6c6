"""`metrics.jsonl`: one line a measurement, also after crashes and resumes."""

import json
import math

import pytest

from app.trackers.jsonl import JsonlTracker, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def tracker(path, num_updates=0):
    made = JsonlTracker(None, path.parent)
    made.start({}, num_updates)
    return made


def shape(path):
    return [(line["kind"], line["num_updates"]) for line in read_metrics(path)]


def test_a_line_has_its_kind_update_time_and_numbers(path):
    tracker(path).log("train", 50, {"loss": 4.5, "epoch": 1})
    (line,) = path.read_text().splitlines()
    values = json.loads(line)
    assert values.pop("time") > 1.7e9
    assert values == {"kind": "train", "num_updates": 50, "loss": 4.5, "epoch": 1}


def test_numbers_that_json_has_not_are_null(path):
    tracker(path).log("train", 50, {"loss": math.nan, "ppl": math.inf})
    assert read_metrics(path)[0]["loss"] is None
    assert "NaN" not in path.read_text()


def test_a_resumed_run_drops_what_came_after_its_checkpoint_and_repeats_nothing(path):
    first = tracker(path)
    for num_updates in (50, 100, 150):
        first.log("train", num_updates, {"loss": 1.0})
    first.log("valid", 100, {"loss": 2.0})
    second = tracker(path, num_updates=100)
    assert shape(path) == [("train", 50), ("train", 100), ("valid", 100)]
    second.log("valid", 100, {"loss": 2.0})
    second.log("train", 150, {"loss": 1.5})
    assert shape(path) == [("train", 50), ("train", 100), ("valid", 100), ("train", 150)]
    assert read_metrics(path)[-1]["loss"] == 1.5


def test_a_line_that_a_kill_cut_off_is_dropped(path):
    tracker(path).log("train", 50, {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"kind": "train", "num_upd')
    tracker(path, num_updates=60).log("train", 100, {"loss": 1.0})
    assert shape(path) == [("train", 50), ("train", 100)]
    assert len(path.read_text().splitlines()) == 2


def test_a_run_that_starts_anew_starts_its_file_anew(path):
    tracker(path).log("train", 50, {"loss": 1.0})
    tracker(path)
    assert shape(path) == []


def test_no_file_is_no_metrics(path):
    assert read_metrics(path) == []

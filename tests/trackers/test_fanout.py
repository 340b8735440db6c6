"""All trackers behind one: a tracker may fail, training may not."""

import logging
from pathlib import Path

import pytest

from app.trackers import Tracker
from app.trackers.fanout import Trackers
from app.trackers.jsonl import read_metrics

CONFIG = {"trainer": {"max_update": 100, "max_epoch": 0, "stop_time_hours": 0}}


class Recorder(Tracker):
    def __init__(self, cfg, run_dir):
        self.calls = []

    def start(self, config, num_updates):
        self.calls.append("start")

    def log(self, kind, num_updates, metrics):
        self.calls.append((kind, num_updates))

    def finish(self):
        self.calls.append("finish")


class Broken(Recorder):
    """Fails in the method that it is told."""

    def __init__(self, cfg, run_dir):
        super().__init__(cfg, run_dir)
        setattr(self, cfg, self.fail)

    def fail(self, *args):
        self.calls.append("failed")
        raise ConnectionResetError("the server is gone")


def run(trackers):
    trackers.start(CONFIG, 0)
    for num_updates in (10, 20, 30):
        trackers.log("train", num_updates, {"loss": 1.0})
    trackers.finish()


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_tracker_that_raises_is_told_once_and_left_out(tmp_path, caplog, method):
    broken, whole = Broken(method, tmp_path), Recorder(None, tmp_path)
    run(Trackers({"broken": lambda _: broken, "whole": lambda _: whole}, tmp_path))
    assert whole.calls == ["start", ("train", 10), ("train", 20), ("train", 30), "finish"]
    assert broken.calls.count("failed") == 1
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["tracker broken: ConnectionResetError: the server is gone; training goes on without it"]


def test_metrics_are_written_to_a_file_whatever_is_configured(tmp_path):
    run(Trackers({}, tmp_path))
    assert [line["num_updates"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20, 30]


def test_a_full_disk_stops_the_file_and_not_the_run(tmp_path, caplog):
    trackers = Trackers({}, tmp_path)
    trackers.start(CONFIG, 0)
    trackers.trackers["metrics.jsonl"].path = Path("/dev/full")
    trackers.log("train", 10, {"loss": 1.0})
    trackers.log("train", 20, {"loss": 1.0})
    assert caplog.text.count("tracker metrics.jsonl: OSError: [Errno 28] No space left on device") == 1

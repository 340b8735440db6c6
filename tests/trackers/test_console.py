"""Progress: lines on a plain stream, a bar on a terminal. Both as a program's standard error."""

import os
import pty
import re
import subprocess
import sys

import pytest

from app.errors import StorageError
from app.runtime.logs import log_to_file
from app.trackers.console import ConsoleTracker, share_done

RUN = """
import logging, sys
from pathlib import Path
from app.runtime.logs import log_to_file, log_to_stderr
from app.trackers.console import ConsoleTracker

log_to_stderr()
log_to_file(Path(sys.argv[1]))
tracker = ConsoleTracker(None, Path())
tracker.start({"trainer": {"max_update": 200, "max_epoch": 0, "stop_time_hours": 0}}, 0)
for num_updates in (50, 100):
    metrics = {"loss": 4.5, "ppl": 12.3456, "wps": 21345.6, "lr": 5e-4, "clip": 0.25, "padding": 0.031, "epoch": 1}
    tracker.log("train", num_updates, metrics)
    logging.getLogger("app.trainer").info("a message")
tracker.log("valid", 100, {"loss": 4.0, "bleu": 31.259, "epoch": 1})
tracker.finish()
print("result")
"""
LINE = "update=100/200 epoch=1 loss=4.5 ppl=12.35 wps=21346 lr=0.0005 clip=25.0% padding=3.1% eta=0:00:00"


@pytest.fixture
def log_file(tmp_path):
    return tmp_path / "train.log"


def on_a_terminal(*command):
    """What a program writes to a terminal of 120 columns; its standard output is another one."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env=env, text=True) as program:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:  # the other end was closed
            pass
        assert program.stdout.read() == "result\n"
    os.close(ours)
    assert program.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def test_on_a_plain_stream_every_measurement_is_a_line_to_grep(log_file):
    ended = subprocess.run([sys.executable, "-c", RUN, log_file], capture_output=True, text=True, check=True)
    assert ended.stdout == "result\n"
    lines = ended.stderr.splitlines()
    assert all(
        re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| INFO \| (train|valid|app.trainer) \| ", line) for line in lines
    )
    assert [line.split(" | ", 3)[3] for line in lines if "| train |" in line][-1] == LINE
    assert lines[-1].endswith("| valid | update=100/200 epoch=1 loss=4 bleu=31.26")
    assert log_file.read_text() == ended.stderr


def test_on_a_terminal_training_is_on_the_bar_and_messages_scroll_above_it(log_file):
    seen = on_a_terminal(sys.executable, "-c", RUN, log_file)
    assert "━" in seen
    assert re.search(r"epoch 1 update 100 .* 50% .*loss 4.5  ppl 12.35  tok/s 21346  lr 0.0005  pad 3.1%", seen)
    assert "wps=21346" not in seen
    assert seen.count("app.trainer | a message") == 2
    assert "valid | update=100/200" in seen
    assert LINE in log_file.read_text()


@pytest.mark.parametrize(
    ("limits", "metrics", "share"),
    [
        ({"max_update": 200, "max_epoch": 0, "stop_time_hours": 0}, {"epoch": 1}, 0.25),
        ({"max_update": 0, "max_epoch": 10, "stop_time_hours": 0}, {"epoch": 4}, 0.3),
        ({"max_update": 0, "max_epoch": 0, "stop_time_hours": 2}, {"epoch": 4, "train_wall": 3600.0}, 0.5),
        ({"max_update": 100, "max_epoch": 10, "stop_time_hours": 2}, {"epoch": 4, "train_wall": 3600.0}, 0.5),
        ({"max_update": 0, "max_epoch": 0, "stop_time_hours": 0}, {"epoch": 4}, 0.0),
    ],
)
def test_progress_counts_towards_the_nearest_limit(limits, metrics, share):
    assert share_done(limits, 50, metrics) == pytest.approx(share)


def test_the_time_left_is_that_of_the_average_speed(monkeypatch, tmp_path):
    clock = iter([0.0, 100.0, 130.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    tracker = ConsoleTracker(None, tmp_path)
    tracker.limits = {"max_update": 1000}
    assert tracker._eta(500, {}) is None
    assert tracker._eta(600, {}).total_seconds() == 120


def test_a_log_file_that_cannot_be_written_is_told(log_file):
    log_file.touch()
    with pytest.raises(StorageError, match=r"train\.log/below\.log: cannot be written"):
        log_to_file(log_file / "below.log")

"""TensorBoard's event files, read back with TensorBoard's own reader."""

import importlib.util

import pytest

from app.trackers.tensorboard import TensorBoardConfig, TensorBoardTracker

pytest.importorskip("tensorboard", reason="pip install 'seqwright[tensorboard]'")

CONFIG = TensorBoardConfig(directory="tensorboard", flush_secs=30)


def scalars(run_dir, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def log(run_dir, num_updates, *steps):
    tracker = TensorBoardTracker(CONFIG, run_dir)
    tracker.start({}, num_updates)
    for step, loss in steps:
        tracker.log("train", step, {"loss": loss})
    tracker.finish()


def test_scalars_stand_over_updates(tmp_path):
    log(tmp_path, 0, (50, 4.5), (100, 4.25))
    assert scalars(tmp_path, "train/loss") == [(50, 4.5), (100, 4.25)]


def test_a_resumed_run_hides_what_came_after_its_checkpoint(tmp_path):
    log(tmp_path, 0, (50, 4.5), (100, 4.25), (150, 9.0))
    log(tmp_path, 100, (150, 4.0))
    assert scalars(tmp_path, "train/loss") == [(50, 4.5), (100, 4.25), (150, 4.0)]


def test_where_it_is_not_installed_the_check_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'seqwright[tensorboard]'" in next(CONFIG.check())

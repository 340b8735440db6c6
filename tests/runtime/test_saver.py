"""Checkpoints are written while training goes on; a disk that refuses one costs an interval, not the run."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from app.errors import StorageError
from app.runtime import storage
from app.runtime.checkpoint import Checkpoint, Checkpoints, Snapshot
from app.runtime.saver import Saver
from tests.runs import checkpoint_config


def saver(run_dir: Path, **changes: Any) -> Saver:
    cfg = checkpoint_config(**changes)
    return Saver(cfg, Checkpoints(cfg, run_dir))


def snapshot(update: int, weight: torch.Tensor | None = None, copy: bool = True) -> Snapshot:
    weight = torch.full((4,), float(update)) if weight is None else weight
    return Snapshot.take(update, {"weight": weight}, None, {"num_updates": update, "moment": weight}, {}, copy=copy)


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


class SlowDisk:
    """Holds every write until `go`, and refuses those that `full` lists."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *full: int):
        self.go, self.writes, self.full = threading.Event(), 0, full
        write = storage.write_directory

        def slow(*given: Any) -> None:
            assert self.go.wait(10)
            self.writes += 1
            if self.writes in self.full:
                raise OSError(28, "No space left on device")
            write(*given)

        monkeypatch.setattr("app.runtime.checkpoint.write_directory", slow)


def test_what_is_saved_is_what_was_there_when_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, weight = SlowDisk(monkeypatch), torch.zeros(4)
    with saver(tmp_path) as background:
        background.save(snapshot(1, weight), last=False)
        weight += 1  # training goes on
        assert not (tmp_path / "checkpoints" / "update_00000001").exists()
        disk.go.set()
    saved = Checkpoint.open(tmp_path / "checkpoints" / "update_00000001")
    assert saved.tensors("model.safetensors")["weight"].tolist() == [0.0] * 4
    assert saved.state()["moment"].tolist() == [0.0] * 4


def test_one_at_a_time_and_the_last_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SlowDisk(monkeypatch).go.set()
    with saver(tmp_path, keep_last=9) as background:
        for update in (1, 2):
            background.save(snapshot(update), last=False)
        background.save(snapshot(3), last=True)
        assert names(tmp_path) == [f"update_0000000{n}" for n in (1, 2, 3)]
        assert background.newest == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


def test_without_a_thread_training_waits(tmp_path: Path) -> None:
    with saver(tmp_path, save_async=False) as background:
        background.save(snapshot(1, copy=False), last=False)
        assert background.newest == 1


def test_a_full_disk_is_told_and_the_next_interval_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    SlowDisk(monkeypatch, 2).go.set()
    with caplog.at_level(logging.WARNING), saver(tmp_path, keep_last=9) as background:
        for update in (1, 2, 3):
            background.save(snapshot(update), last=False)
        background.wait()
        assert background.newest == 3
    assert names(tmp_path) == ["update_00000001", "update_00000003"]
    assert caplog.text.count("No space left on device") == 1
    assert "saves again at the next interval" in caplog.text


def test_a_full_disk_stops_a_run_that_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SlowDisk(monkeypatch, 1).go.set()
    with saver(tmp_path, on_write_error="stop") as background:
        background.save(snapshot(1), last=False)
        with pytest.raises(StorageError, match="No space left"):
            background.wait()


def test_the_last_one_is_never_lost_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SlowDisk(monkeypatch, 1).go.set()
    with pytest.raises(StorageError, match="No space left"), saver(tmp_path) as background:
        background.save(snapshot(1), last=True)


def test_room_for_two_is_asked_for_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(len(content) for content in snapshot(1).contents().values())
    usage = storage.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: usage._replace(free=int(1.5 * size)))
    with saver(tmp_path) as background:
        background.save(snapshot(1), last=False)
        background.wait()
        assert names(tmp_path) == []
        background.save(snapshot(2), last=True)  # nothing is written after it
    assert names(tmp_path) == ["update_00000002"]


def test_when_a_save_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("app.runtime.saver.time.monotonic", lambda: clock[0])
    by_updates = saver(tmp_path, save_interval_updates=3, save_interval_minutes=0)
    assert [n for n in range(1, 10) if by_updates.is_due(n)] == [3, 6, 9]
    with saver(tmp_path, save_interval_minutes=2) as by_time:
        due = []
        for n in range(1, 8):
            clock[0] += 50.0
            if by_time.is_late():
                due.append(n)
                by_time.save(snapshot(n), last=False)
    assert due == [3, 6]


def test_the_pattern_keeps_what_is_old(tmp_path: Path) -> None:
    cfg = checkpoint_config(keep_last=1, keep_best=0, keep_interval_updates_pattern=4)
    for update in range(1, 11):
        Checkpoints(cfg, tmp_path).write(snapshot(update))
    assert names(tmp_path) == [f"update_{n:08d}" for n in (4, 8, 10)]

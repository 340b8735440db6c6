"""Disks that are full or closed cost a checkpoint or a log, never the run and never what was saved before."""

import ctypes
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import StorageError
from app.runtime import faults
from tests.faults.victims import Victim, digest, leftovers, newest

SHORT = ["trainer.max_update=20", "trainer.validate_interval_updates=0"]


def little_room() -> None:
    """No file of this process may grow beyond 60 kB, as on a full disk (a real OSError, not an injected one)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def without_special_rights() -> None:
    """The administrator too may only write where a directory's mode says so."""
    drop_from_bounding_set, dac_override = 24, 1  # linux/prctl.h, linux/capability.h
    ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


@pytest.mark.fault("F08")
def test_a_disk_without_room_for_checkpoints(tmp_path: Path) -> None:
    expected = Victim(tmp_path / "whole", *SHORT).here()
    victim = Victim(tmp_path / "full", *SHORT)
    code, err = victim.run(preexec_fn=little_room)
    assert code == 5
    told = [line for line in err.splitlines() if "training goes on, and saves again at the next interval" in line]
    assert all(any(f"update_{update:08d}:" in line for line in told) for update in (5, 10, 15, 20))
    assert err.splitlines()[-1].startswith("app.train: ")
    assert "File too large; free space there or set run_dir elsewhere" in err.splitlines()[-1]
    assert leftovers(victim.run_dir) == []
    assert victim.here() == expected


@pytest.mark.fault("F08")
def test_a_disk_without_room_for_the_vocabularies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.runtime.storage.sync_all", full)
    with pytest.raises(StorageError, match="run/task: No space left on device; free space there"):
        Victim(tmp_path / "run", *SHORT).here()


@pytest.fixture
def full_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The second checkpoint of this process does not fit."""
    faults.asked.cache_clear()
    faults.times.clear()
    monkeypatch.setenv("FAULT", "full:checkpoint.opened@6")
    yield
    faults.asked.cache_clear()


@pytest.mark.fault("F08")
@pytest.mark.usefixtures("full_once")
def test_a_disk_that_is_full_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    victim = Victim(tmp_path / "run", *SHORT)
    victim.here()
    assert newest(victim.run_dir).num_updates == 20
    assert caplog.text.count("No space left on device") == 1


@pytest.mark.fault("F08")
@pytest.mark.usefixtures("full_once")
def test_a_run_that_asks_to_be_stopped_then(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "run", *SHORT, "checkpoint.on_write_error=stop")
    with pytest.raises(StorageError, match="No space left on device") as full:
        victim.here()
    assert full.value.exit_code == 5
    assert newest(victim.run_dir).num_updates == 5


@pytest.mark.fault("F10")
def test_logs_that_cannot_be_written(tmp_path: Path) -> None:
    """train.log on a full device, metrics.jsonl not to be written at all: a warning each."""
    victim = Victim(tmp_path / "run", *SHORT)
    (victim.run_dir / "metrics.jsonl").mkdir(parents=True)
    (victim.run_dir / "train.log").symlink_to("/dev/full")
    code, err = victim.run()
    assert code == 0, err
    assert err.count("No space left on device; nothing more is written there") == 1
    assert err.count("tracker metrics.jsonl: IsADirectoryError") == 1
    assert newest(victim.run_dir).num_updates == 20


@pytest.mark.fault("F11")
@pytest.mark.parametrize("place", ["run_dir", "cache_dir"])
def test_a_directory_that_is_closed(place: str, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    victim = Victim(tmp_path / "victim", f"{place}={tmp_path / 'closed' / 'here'}")
    code, err = victim.run(preexec_fn=without_special_rights)
    assert code == 2
    assert "no permission to write in" in err
    assert f"{place}=" in err
    assert not victim.run_dir.exists()


@pytest.mark.fault("F04")
def test_a_kill_within_the_background_write(tmp_path: Path) -> None:
    """The whole command, killed by the thread that writes while training goes on."""
    expected = Victim(tmp_path / "whole", *SHORT).here()
    victim = Victim(tmp_path / "broken", *SHORT)
    code, err = victim.run("kill:checkpoint.half@7")
    assert code == -9, err
    assert newest(victim.run_dir).num_updates == 5
    assert victim.here() == expected
    assert digest(victim.run_dir) == expected
    assert leftovers(victim.run_dir) == []

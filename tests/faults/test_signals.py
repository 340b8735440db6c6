"""Asked to stop, a run saves and says how it ended; asked again, it goes at once; a storm is one request."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from app.runtime.storage import remove_leftovers
from tests.faults.victims import SOAK, Record, Victim, digest, newest, wait_for

LONG = ["trainer.max_update=100000", "trainer.validate_interval_updates=0", "checkpoint.save_interval_updates=20"]


def started(victim: Victim, fault: str = "") -> object:
    """The process, a moment after its first update."""
    process = victim.start(fault)
    assert wait_for(process, "parameters on")
    time.sleep(1)
    return process


@pytest.mark.fault("F24")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_one_signal(number: int, code: int, tmp_path: Path, record_property: Record) -> None:
    tries = 5 if SOAK else 1
    for attempt in range(tries):
        victim = Victim(tmp_path / f"broken-{attempt}", *LONG)
        process = started(victim)
        time.sleep(random.Random(attempt).uniform(0, 1))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert err.splitlines()[-1] == "app.train: stopped by a signal, state saved; the same command goes on"
        stopped_at = newest(victim.run_dir).num_updates
        settings = [*LONG, f"trainer.max_update={stopped_at + 5}"]
        whole = Victim(tmp_path / f"whole-{attempt}", *settings)
        victim.overrides += settings
        assert victim.here() == whole.here()
    record_property("tries", tries)


@pytest.mark.fault("F24")
def test_another_a_second_later(tmp_path: Path) -> None:
    """The last save takes two seconds here; the second signal does not wait for it."""
    victim = Victim(tmp_path / "run", *LONG, "checkpoint.save_interval_updates=100000")
    assert victim.run("term:update@4")[0] == 143
    process = started(victim, "slow:checkpoint.half")
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    process.send_signal(signal.SIGTERM)
    before = time.monotonic()
    process.communicate(timeout=60)
    assert time.monotonic() - before < 1
    assert process.returncode == 143
    assert newest(victim.run_dir).num_updates == 4
    remove_leftovers(victim.run_dir / "checkpoints", "update_*")
    assert os.listdir(victim.run_dir / "checkpoints") == ["update_00000004"]


@pytest.mark.fault("F25")
def test_a_storm_during_a_slow_save(tmp_path: Path, record_property: Record) -> None:
    victim = Victim(tmp_path / "run", *LONG)
    process = started(victim, "slow:checkpoint.half@1,slow:checkpoint.half@5")
    for _ in range(50):
        for number in (signal.SIGUSR2, signal.SIGTERM):
            process.send_signal(number)
        time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (128 + signal.SIGUSR2, 128 + signal.SIGTERM), err
    (checkpoint,) = (victim.run_dir / "checkpoints").iterdir()
    assert newest(victim.run_dir).path == checkpoint
    assert digest(victim.run_dir)
    record_property("tries", 100)

"""Faults come when they are asked for, where they are asked for, and never else."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from app.errors import ConfigError
from app.runtime import faults
from app.runtime.faults import Fault, parse, reach


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    faults.asked.cache_clear()
    faults.times.clear()
    yield
    faults.asked.cache_clear()


def test_unset_they_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAULT", raising=False)
    monkeypatch.setattr(faults, "_do", lambda action: pytest.fail(action))
    assert [reach(point) for point in ("update", "checkpoint.write", "loss") for _ in range(3)] == [None] * 9
    assert not faults.times


def test_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse("kill:update@7,nan:loss@9#1,hang:worker") == (
        Fault("kill", "update", 7, None),
        Fault("nan", "loss", 9, 1),
        Fault("hang", "worker", None, None),
    )
    monkeypatch.setenv("FAULT", "kill update")
    with pytest.raises(ConfigError, match="FAULT=kill update: must be ACTION:POINT@NUMBER#RANK"):
        reach("update")


def test_numbers_are_the_callers_or_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "nan:loss@9,spike:batch@2,inf:grad")
    assert [reach("loss", number) for number in (8, 9, 9)] == [None, "nan", "nan"]
    assert [reach("batch") for _ in range(3)] == [None, "spike", None]
    assert [reach("grad") for _ in range(2)] == ["inf", "inf"]


def test_a_worker_may_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "oom:update#1")
    assert reach("update", 1) is None
    monkeypatch.setenv("RANK", "1")
    assert reach("update", 1) == "oom"


def test_a_full_disk_is_an_error_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "full:checkpoint.write@2")
    reach("checkpoint.write")
    with pytest.raises(OSError, match="No space left") as full:
        reach("checkpoint.write")
    assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize("action", ["kill", "term", "usr2"])
def test_signals_hit_this_process(action: str) -> None:
    program = "from app.runtime.faults import reach\nreach('here')\nprint('alive')"
    environment = {**os.environ, "FAULT": f"{action}:here"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-faults.SIGNALS[action], "")
    assert -done.returncode in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2)

"""Batches made by processes: in order, past one death, and not past a second or a hang."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from app.data.batch import Batch
from app.data.iterator import EpochIterator
from app.data.workers import _Worker, in_workers
from app.errors import DataError, WorkerError
from tests.data.test_iterator import CFG, make_dataset


def square(number: int) -> int:
    if number < 0:
        raise DataError(f"line {number} is bad")
    return number * number


def square_or_die(directory: Path, deaths: int, number: int) -> int:
    """Dies at the number 7, as often as is asked for."""
    if number == 7 and len(list(directory.iterdir())) < deaths:
        (directory / str(time.monotonic_ns())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die(item: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(number: int) -> int:
    if number == 3:
        time.sleep(600)
    return number


def test_results_come_in_order() -> None:
    assert list(in_workers(square, range(30), 3, timeout=60)) == [n * n for n in range(30)]
    assert not multiprocessing.active_children()


def test_what_the_function_raises_is_raised_in_its_place() -> None:
    results = in_workers(square, [1, 2, -3, 4], 2, timeout=60)
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(DataError, match="line -3 is bad"):
        next(results)


def test_batches_are_those_of_the_thread(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [[*draw.integers(4, 99, draw.integers(1, 12)).tolist(), 2] for _ in range(60)]
    dataset = make_dataset(tmp_path, rows[::2], rows[1::2])

    def epoch(num_workers: int) -> list[Batch]:
        cfg = replace(CFG, num_workers=num_workers)
        return list(EpochIterator(dataset, cfg, 1))

    for ours, theirs in zip(epoch(2), epoch(0), strict=True):
        assert ours.src_tokens.tolist() == theirs.src_tokens.tolist()
        assert ours.ids.tolist() == theirs.ids.tolist()


@pytest.mark.fault("F17")
def test_one_death_changes_nothing_and_two_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for deaths in (1, 2):
        (tmp_path / str(deaths)).mkdir()
    once, twice = (partial(square_or_die, tmp_path / str(deaths), deaths) for deaths in (1, 2))
    assert list(in_workers(once, range(20), 2, timeout=60)) == [n * n for n in range(20)]
    assert "all are started again, at the same batch" in caplog.text
    results = in_workers(twice, range(20), 2, timeout=60)
    assert [next(results) for _ in range(7)] == [n * n for n in range(7)]
    with pytest.raises(WorkerError, match="died again") as died:
        next(results)
    assert died.value.exit_code == 7
    assert not multiprocessing.active_children()


@pytest.mark.fault("F17")
def test_a_death_while_all_are_started_again_is_told_too() -> None:
    """Items larger than a pipe holds: they are not all given before the process is gone."""
    with pytest.raises(WorkerError, match="died again"):
        next(in_workers(die, [bytes(10**6)] * 9, 2, timeout=60))


def test_a_process_whose_master_was_killed_ends_without_a_word() -> None:
    """What it had sent and nobody read resets the connection."""
    worker = _Worker(square)
    worker.connection.send(3)
    assert worker.connection.poll(60)
    worker.connection.close()
    worker.process.join(60)
    assert worker.process.exitcode == 0


HANGING = """
from app.cli import told
from app.data.workers import in_workers
from tests.data.test_workers import hang

with told("train"):
    print(list(in_workers(hang, range(9), 2, timeout=3)))
"""


@pytest.mark.fault("F18")
def test_a_process_that_hangs_is_told_with_its_stack() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stderr
    assert "has made no batch for 3 seconds" in done.stderr
    assert "in hang" in done.stderr

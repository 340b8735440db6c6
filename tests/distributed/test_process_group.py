"""Ranks wait for each other. How one's process ends: it is not taken down, and if it failed it waits for nobody."""

import atexit
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from app.compose import CONF
from app.config import DistributedConfig
from app.errors import DataError, RankError, Stopped, StorageError
from app.runtime.distributed import joined
from app.runtime.launch import GRACE, launch
from app.runtime.process_group import exit_code_of


def ends_well(cfg: DistributedConfig, directory: Path) -> float:
    """What was registered before the group was there is never called; what came later is."""
    atexit.register((directory / "taken_down").touch)
    with joined(cfg) as workers:
        atexit.register((directory / f"rank_{workers.rank}").touch)
        with workers.first_goes_ahead():
            if workers.is_first:
                time.sleep(1)
                (directory / "prepared").touch()
            assert (directory / "prepared").exists()
        return workers.total([1.0])[0]


def stops(cfg: DistributedConfig, directory: Path) -> None:
    """A signal has ended both, and the first takes longer over it than a launcher waits for who is left."""
    with joined(cfg) as workers:
        if workers.is_first:
            time.sleep(2 * GRACE)
            (directory / "saved").touch()
        raise Stopped("stopped", signal.SIGUSR2)


def fails_in_an_exchange(cfg: DistributedConfig) -> None:
    """The second rank ends for a reason of its own while a sum is under way that the first never adds to."""
    with joined(cfg) as workers:
        workers.started()
        if workers.is_first:
            time.sleep(600)
        dist.all_reduce(torch.ones(3), async_op=True)
        raise SystemExit(DataError.exit_code)


@pytest.fixture
def cfg() -> DistributedConfig:
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / "distributed" / "none.yaml"))
    return DistributedConfig(**(values | {"strategy": "ddp"}))


def test_a_finished_rank_is_not_taken_down(cfg: DistributedConfig, tmp_path: Path) -> None:
    (ended := tmp_path / "ended").mkdir()
    assert launch(ends_well, 2, cfg, ended) == 2.0
    assert sorted(path.name for path in ended.iterdir()) == ["prepared", "rank_0", "rank_1"]


def test_a_rank_that_was_stopped_waits_until_the_first_has_saved(cfg: DistributedConfig, tmp_path: Path) -> None:
    with pytest.raises(Stopped) as ended:
        launch(stops, 2, cfg, tmp_path)
    assert ended.value.exit_code == 128 + signal.SIGUSR2
    assert (tmp_path / "saved").exists()


def test_a_rank_that_fails_does_not_wait_for_its_exchanges(cfg: DistributedConfig) -> None:
    began = time.monotonic()
    with pytest.raises(RankError) as ended:
        launch(fails_in_an_exchange, 2, cfg)
    assert ended.value.exit_code == DataError.exit_code
    assert time.monotonic() - began < cfg.first_timeout / 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("the disk is full"), 5),
        (SystemExit(7), 7),
        (SystemExit("a message"), 1),
        (SystemExit(), 0),
        (KeyboardInterrupt(), 130),
        (ValueError(), 1),
    ],
)
def test_exit_codes_are_those_of_python_and_of_our_errors(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code

"""What `conf/hydra/launcher` says to submitit about jobs that Slurm ends."""

import signal
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths, UncompletedJobError
from submitit.slurm.slurm import SlurmJobEnvironment

from app.cli import store_schema
from app.compose import CONF


def launcher_of(*overrides: str) -> object:
    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = compose("train", ["hydra/launcher=slurm", *overrides], return_hydra_config=True).hydra.launcher
    chosen.submitit_folder = "unused"
    return instantiate(chosen)


def test_a_job_is_queued_again_after_so_many_time_limits_and_any_preemption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`max_num_timeout` time limits are forgiven, and the next ends the job; making room for others is not counted."""
    launcher = launcher_of("hydra.launcher.max_num_timeout=2", "hydra.launcher.timeout_min=60")
    values = launcher.params  # type: ignore[attr-defined]
    queued: list[int] = []
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(SlurmJobEnvironment, "_requeue", lambda self, countdown: queued.append(countdown))
    job = DelayedSubmission(launcher)  # type: ignore[arg-type]
    job.set_timeout(values["timeout_min"], values["max_num_timeout"])
    paths = JobPaths(tmp_path, "12")

    def told_by_slurm(minutes: int) -> None:
        """USR2 after so many minutes, in the process of the job as it was queued last."""
        own = DelayedSubmission.load(paths.submitted_pickle) if queued else job
        handler = SignalHandler(SlurmJobEnvironment(), paths, own)
        handler._start_time = time.time() - 60 * minutes
        handler.checkpoint_and_try_requeue(signal.SIGUSR2)

    for minutes in (59, 5, 59):
        with pytest.raises(SystemExit):
            told_by_slurm(minutes)
    assert queued == [1, 1, 0]
    with pytest.raises(UncompletedJobError, match="timed-out too many times"):
        told_by_slurm(59)
    assert queued == [1, 1, 0]


def test_jobs_may_reach_their_limit_a_hundred_times() -> None:
    """submitit's own value is 0: a job that needs two days on a partition of one would never end."""
    assert launcher_of().params["max_num_timeout"] == 100  # type: ignore[attr-defined]

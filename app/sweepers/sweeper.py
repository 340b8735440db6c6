"""What our sweepers share: overrides become axes, trials become jobs of the launcher, results become a file."""

import json
import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from app.sweepers.space import Axis, axes_of

logger = logging.getLogger(__name__)

RESULTS = "results.json"


@dataclass
class Trial:
    """One point of the search. Its run is found again by its overrides, so that asking twice costs nothing."""

    number: int
    overrides: list[str]
    value: float | None = None  # of checkpoint.metric; None: failed, or not finite


class SearchSweeper(Sweeper):
    """Chooses points by what `app.train` returned for others: the best value of `checkpoint.metric`."""

    def __init__(self, n_trials: int, seed: int, max_batch_size: int | None = None, params: Any = None):
        self.n_trials, self.seed, self.max_batch_size = n_trials, seed, max_batch_size or n_trials
        self.params: dict[str, str] = dict(params or {})
        self.jobs = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context: HydraContext = hydra_context
        self.config: DictConfig = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.mode = str(OmegaConf.select(config, "checkpoint.mode", default="min"))

    def sweep(self, arguments: list[str]) -> float | None:
        """Returns the best value."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        axes, self.fixed = axes_of(parser.parse_overrides(given))
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        trials = sorted(self.search(axes), key=self.place)
        self.write(trials)
        if trials and trials[0].value is not None:
            logger.info("best of %d: %.6g with %s", len(trials), trials[0].value, " ".join(trials[0].overrides))
            return trials[0].value
        return None

    @abstractmethod
    def search(self, axes: Sequence[Axis]) -> list[Trial]:
        """Run trials with `run`, and return all."""

    def run(self, trials: Sequence[Trial], *more: str) -> None:
        """Run the trials as jobs, at most `max_batch_size` at a time, and note their values."""
        for start in range(0, len(trials), self.max_batch_size):
            batch = trials[start : start + self.max_batch_size]
            commands = [[*self.fixed, *trial.overrides, *more] for trial in batch]
            returned = self.launcher.launch(commands, initial_job_idx=self.jobs)
            self.jobs += len(batch)
            for trial, job in zip(batch, returned):
                trial.value = value_of(job)
                if trial.value is None:
                    logger.warning("trial %d has no value: %s", trial.number, " ".join(trial.overrides))

    def place(self, trial: Trial) -> tuple[bool, float]:
        """Sorts the best first, and those without a value last."""
        value = trial.value
        return value is None, 0.0 if value is None else -value if self.mode == "max" else value

    def write(self, trials: Sequence[Trial]) -> None:
        rows = [{"trial": t.number, "value": t.value, "overrides": t.overrides} for t in trials]
        path = Path(self.config.hydra.sweep.dir) / RESULTS
        path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")


def value_of(job: JobReturn) -> float | None:
    """What a job returned; None where it failed, with its error logged."""
    if job.status != JobStatus.COMPLETED:
        try:
            _ = job.return_value
        except Exception as error:  # of the job, whatever it was: the search goes on without it
            logger.warning("a job failed: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None
    value = job.return_value
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None

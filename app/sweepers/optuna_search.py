from collections.abc import Sequence
from typing import Any

from app.errors import UserError
from app.sweepers.space import Axis, Choice
from app.sweepers.sweeper import SearchSweeper, Trial


class OptunaSearch(SearchSweeper):
    """Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) over the same axes.

    `max_batch_size` trials run at a time; with the same seed and batch size the same sweep asks for the same points, so
    that it resumes.
    """

    def search(self, axes: Sequence[Axis]) -> list[Trial]:
        try:
            import optuna
        except ImportError:
            raise UserError("hydra/sweeper=optuna: Optuna is not installed; pip install 'seqwright[optuna]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self.seed, constant_liar=True)
        study = optuna.create_study(direction="maximize" if self.mode == "max" else "minimize", sampler=sampler)
        trials: list[Trial] = []
        while len(trials) < self.n_trials:
            asked = [study.ask() for _ in range(min(self.max_batch_size, self.n_trials - len(trials)))]
            batch = [Trial(len(trials) + i, [suggest(ask, axis) for axis in axes]) for i, ask in enumerate(asked)]
            self.run(batch)
            for ask, trial in zip(asked, batch):
                failed = optuna.trial.TrialState.FAIL if trial.value is None else None
                study.tell(ask, trial.value, state=failed)
            trials += batch
        return trials


def suggest(trial: Any, axis: Axis) -> str:
    """The override that Optuna proposes for one axis."""
    if isinstance(axis, Choice):
        return f"{axis.key}={trial.suggest_categorical(axis.key, axis.options)}"
    if axis.is_int:
        return axis.override(trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.is_log))
    return axis.override(trial.suggest_float(axis.key, axis.low, axis.high, log=axis.is_log))

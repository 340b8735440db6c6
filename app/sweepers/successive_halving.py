import logging
from collections.abc import Sequence
from typing import Any

from app.errors import ConfigError
from app.sweepers.space import Axis, point
from app.sweepers.sweeper import SearchSweeper, Trial

logger = logging.getLogger(__name__)


class SuccessiveHalving(SearchSweeper):
    """Many short runs, of which the best share goes on (Jamieson and Talwalkar, 2016, sec. 3).

    All trials train up to `min_update`; the best 1 / `eta` of them to `eta` times as many updates, and so on to
    `max_update`. Nothing is trained twice: a run that goes on resumes from its checkpoint.
    """

    def __init__(self, min_update: int, max_update: int, eta: int, **others: Any):
        super().__init__(**others)
        if not (1 <= min_update <= max_update and eta >= 2):
            raise ConfigError(["hydra.sweeper: needs 1 <= min_update <= max_update and eta >= 2"])
        self.min_update, self.max_update, self.eta = min_update, max_update, eta

    def search(self, axes: Sequence[Axis]) -> list[Trial]:
        trials = [Trial(i, point(axes, self.seed, i)) for i in range(self.n_trials)]
        going_on = trials
        for updates in self.rungs():
            self.run(going_on, f"trainer.max_update={updates}")
            going_on = sorted((t for t in going_on if t.value is not None), key=self.place)
            going_on = going_on[: max(1, len(going_on) // self.eta)]
            logger.info("%d of %d go on after %d updates", len(going_on), len(trials), updates)
        return trials

    def rungs(self) -> list[int]:
        """The numbers of updates at which runs are compared, rising to `max_update`."""
        rungs = [self.max_update]
        while rungs[0] // self.eta >= self.min_update:
            rungs.insert(0, rungs[0] // self.eta)
        return rungs

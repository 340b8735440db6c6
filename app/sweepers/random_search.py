from collections.abc import Sequence

from app.sweepers.space import Axis, point
from app.sweepers.sweeper import SearchSweeper, Trial


class RandomSearch(SearchSweeper):
    """Independent draws of every axis (Bergstra and Bengio, 2012). More `n_trials` later keep the first ones."""

    def search(self, axes: Sequence[Axis]) -> list[Trial]:
        trials = [Trial(i, point(axes, self.seed, i)) for i in range(self.n_trials)]
        self.run(trials)
        return trials

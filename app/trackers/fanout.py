"""All trackers of a run behind one: the console and `metrics.jsonl` always, beside what `tracker=` names."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.trackers import Tracker
from app.trackers.console import ConsoleTracker
from app.trackers.jsonl import JsonlTracker

logger = logging.getLogger(__name__)


class Trackers:
    """Hands every call on to every tracker. One that raises is named in a warning and left out from then on."""

    def __init__(self, factories: Mapping[str, Callable[[Path], Tracker]], run_dir: Path, is_first: bool = True):
        self.trackers: dict[str, Tracker] = {}
        if is_first:  # of several workers: the others' numbers are in its own
            self.trackers["metrics.jsonl"] = JsonlTracker(None, run_dir)
            self.trackers["console"] = ConsoleTracker(None, run_dir)
            self.trackers |= {name: make(run_dir) for name, make in factories.items()}

    def start(self, config: dict[str, Any], num_updates: int) -> None:
        self._each(lambda tracker: tracker.start(config, num_updates))

    def log(self, kind: str, num_updates: int, metrics: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.log(kind, num_updates, dict(metrics)))

    def finish(self) -> None:
        self._each(lambda tracker: tracker.finish())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever a service or a disk does, training goes on
                del self.trackers[name]
                logger.warning("tracker %s: %s: %s; training goes on without it", name, type(error).__name__, error)

"""`trainer.profile=true`: where the time of a run's updates goes, and a trace of a few of them."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from app.interfaces import Backward

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
WARM, TRACED = 5, 3  # updates that are not measured, and those after them that the trace has
REST = "rest"


class Profile:
    """Writes `trace.json` and `operations.txt` (of three updates), and `times.json` (of all later ones) in a directory.

    `trace.json` is for chrome://tracing or https://ui.perfetto.dev. Time is that of the innermost part that runs:
    data (waiting for batches), forward, backward, optimizer (averaging, clipping, step), validation, rest. A GPU is
    waited for wherever a part begins or ends, so that a profiled run is a little slower. Without a directory nothing
    is measured.
    """

    def __init__(self, directory: Path | None, device: torch.device):
        self.directory, self.device = directory, device
        self.seconds: dict[str, float] = defaultdict(float)
        self.current, self.since, self.num_updates = REST, time.perf_counter(), 0
        self.tracing: Any = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside, unless it is of a part further inside, is of this part."""
        if self.directory is None:
            yield
            return
        before = self._switch(name)
        try:
            with record_function(name):
                yield
        finally:
            self._switch(before)

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, whose making is of this part."""
        stream, end = iter(items), object()
        while True:
            with self.part(name):
                item: Any = next(stream, end)
            if item is end:
                return
            yield item

    def of_backward(self, optimizer: Backward) -> Backward:
        """The same for a training step, whose backward passes are a part."""
        return optimizer if self.directory is None else _TimedBackward(optimizer, self)

    def updated(self) -> None:
        """After every update: begins and ends the trace."""
        self.num_updates += 1
        if self.directory is None:
            return
        if self.num_updates == WARM:
            activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (self.device.type == "cuda")]
            self.tracing = profile(activities=activities)
            self.tracing.start()
        elif self.tracing is not None and self.num_updates == WARM + TRACED:
            self._write_trace()
            self.seconds.clear()

    def end(self) -> None:
        """After the last update: write what is not written yet."""
        if self.directory is not None and self.num_updates < WARM:
            logger.warning(
                "trainer.profile: %d updates are too few; %d are needed", self.num_updates, WARM + TRACED + 1
            )
        if self.tracing is not None:
            self._write_trace()
        self.shares()

    def _write_trace(self) -> None:
        assert self.directory is not None
        self.tracing.stop()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.tracing.export_chrome_trace(str(self.directory / "trace.json"))
        sums = self.tracing.key_averages().table(sort_by="self_cpu_time_total", row_limit=50, max_name_column_width=40)
        (self.directory / "operations.txt").write_text(sums, encoding="utf-8")
        self.tracing = None
        self.since = time.perf_counter()

    def shares(self) -> dict[str, float]:
        """time_PART: the share, 0..1, of the time since the trace; also written to `times.json`. Empty before that."""
        if self.directory is None or self.num_updates <= WARM + TRACED:
            return {}
        self._switch(self.current)
        total, updates = sum(self.seconds.values()), self.num_updates - WARM - TRACED
        shares = {f"time_{name}": seconds / total for name, seconds in self.seconds.items()}
        told = {"updates": updates, "seconds": dict(self.seconds), "shares": shares}
        (self.directory / "times.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return shares

    def _switch(self, name: str) -> str:
        """From now on time is of this part. Returns that of the time before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self.current] += now - self.since
        before, self.current, self.since = self.current, name, now
        return before


class _TimedBackward:
    """A `Backward` whose backward passes are a part of a profile."""

    def __init__(self, optimizer: Backward, profile: Profile):
        self.optimizer, self.profile = optimizer, profile

    def autocast(self) -> AbstractContextManager[Any]:
        return self.optimizer.autocast()

    def backward(self, loss: Tensor) -> None:
        with self.profile.part("backward"):
            self.optimizer.backward(loss)

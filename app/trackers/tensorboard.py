"""TensorBoard: `tensorboard --logdir outputs` shows all runs."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.ranges import positive
from app.trackers import Tracker


@dataclass
class TensorBoardConfig:
    directory: str  # where the event files go, below the run directory
    flush_secs: int  # seconds after which new numbers are on disk at the latest

    def check(self) -> Iterator[str]:
        yield from positive(self, "flush_secs")
        if importlib.util.find_spec("tensorboard") is None:
            yield "tensorboard: not installed; pip install 'seqwright[tensorboard]'"


class TensorBoardTracker(Tracker):
    """Metrics as scalars `train/<name>` and `valid/<name>` over the number of updates."""

    def __init__(self, cfg: TensorBoardConfig, run_dir: Path):
        self.cfg, self.run_dir = cfg, run_dir
        self.writer: Any = None

    def start(self, config: dict[str, Any], num_updates: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(
            str(self.run_dir / self.cfg.directory),
            purge_step=num_updates + 1,  # TensorBoard hides what an interrupted run logged after its checkpoint
            flush_secs=self.cfg.flush_secs,
        )

    def log(self, kind: str, num_updates: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"{kind}/{name}", value, num_updates)

    def finish(self) -> None:
        if self.writer is not None:
            self.writer.close()

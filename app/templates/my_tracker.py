"""MyTracker: say here where numbers go."""

from dataclasses import dataclass
from pathlib import Path

from app.trackers import Tracker


@dataclass
class MyTrackerConfig:
    file_name: str  # in the run directory


class MyTracker(Tracker):
    """A line of text for every validation."""

    def __init__(self, cfg: MyTrackerConfig, run_dir: Path):
        self.path = run_dir / cfg.file_name

    def log(self, kind: str, num_updates: int, metrics: dict[str, float]) -> None:
        if kind == "valid":
            numbers = " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"update {num_updates}: {numbers}\n")

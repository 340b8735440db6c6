"""Where a run's numbers go. One file a tracker; this page says what a tracker is."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class Tracker(ABC):
    """Receives a run's numbers. A tracker never stops training: what it raises is reported once and it is left out."""

    @abstractmethod
    def __init__(self, cfg: Any, run_dir: Path): ...

    def start(self, config: dict[str, Any], num_updates: int) -> None:
        """Called once, with the whole resolved configuration and the updates done so far: 0, or a checkpoint's."""

    @abstractmethod
    def log(self, kind: str, num_updates: int, metrics: dict[str, float]) -> None:
        """`kind` is train (every `log_interval` updates) or valid (every validation)."""

    def finish(self) -> None:
        """Called once, also after an error or a signal."""

"""When a run ends. What one rank alone knows, a signal or its clock, counts when all have been told."""

import signal
from collections.abc import Sequence

from app.config import TrainerConfig
from app.runtime.signals import CAUGHT, StopSignals


class Stopping:
    """The limits of `cfg`, and requests to stop."""

    def __init__(self, cfg: TrainerConfig, signals: StopSignals):
        self.cfg, self.signals = cfg, signals
        self.signal: int | None = None  # that all ranks know of
        self.is_late = False  # whether all ranks know that `stop_time_hours` is over

    def requests(self, train_wall: float) -> list[float]:
        """What this rank has to say, as numbers that may be added over ranks."""
        asked = [float(self.signals.received == number) for number in CAUGHT]
        return [*asked, float(0 < self.cfg.stop_time_hours <= train_wall / 3600)]

    def learn(self, sums: Sequence[float]) -> None:
        """The sum of all ranks' requests."""
        *asked, late = sums
        self.signal = self.signal or next((number for number, votes in zip(CAUGHT, asked) if votes), None)
        self.is_late = self.is_late or late > 0

    def reason(self, num_updates: int, epoch: int, num_validations_without_gain: int) -> str | None:
        """Why no further update is made."""
        cfg = self.cfg
        if self.signal:
            return f"signal {signal.Signals(self.signal).name}"
        if 0 < cfg.max_update <= num_updates:
            return f"max_update={cfg.max_update}"
        if 0 < cfg.max_epoch < epoch:
            return f"max_epoch={cfg.max_epoch}"
        if 0 < cfg.patience <= num_validations_without_gain:
            return f"patience={cfg.patience}"
        return f"stop_time_hours={cfg.stop_time_hours}" if self.is_late else None

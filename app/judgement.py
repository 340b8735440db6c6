"""What the last validation said, and whether the checkpoint metric gets better."""

import math

from app.config import CheckpointConfig


class Judgement:
    """Metrics of validations by `cfg.metric` and `cfg.mode`."""

    def __init__(self, cfg: CheckpointConfig):
        self.cfg = cfg
        self.best: float | None = None  # of cfg.metric
        self.num_validations_without_gain = 0
        self.valid_metrics: dict[str, float] = {}  # of the last validation
        self.validated_at = self.validated_epoch = -1  # its update and epoch

    def take(self, metrics: dict[str, float], num_updates: int, epoch: int) -> dict[str, float]:
        """Note a validation. Returns what is to be logged of it: its metrics, and the best one so far."""
        self.valid_metrics, self.validated_at, self.validated_epoch = metrics, num_updates, epoch
        value, sign = metrics[self.cfg.metric], 1 if self.cfg.mode == "max" else -1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best):
            self.best, self.num_validations_without_gain = value, 0
        else:
            self.num_validations_without_gain += 1
        return metrics if self.best is None else {**metrics, f"best_{self.cfg.metric}": self.best}

    def of_update(self, num_updates: int) -> dict[str, float]:
        """The metrics of the weights after this update; empty where they were not validated."""
        return self.valid_metrics if self.validated_at == num_updates else {}

    def of_epoch(self, epoch: int) -> float | None:
        """The checkpoint metric of the epoch's last validation, if it had one."""
        return self.valid_metrics[self.cfg.metric] if self.validated_epoch == epoch else None

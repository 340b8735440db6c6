"""Sums of what criterions log, and the numbers that people read from them."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from app.interfaces import Loss

LN2 = math.log(2)


class Meters:
    """Adds up losses. Means are in base 2 a token, as fairseq shows them; `ppl` is 2 ** nll_loss."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.sample_size = 0
        self.num_updates = self.num_clipped = 0
        self.gnorm = 0.0
        self.started_at = time.perf_counter()

    def add(self, losses: list[Loss]) -> None:
        for loss in losses:
            self.sample_size += loss.sample_size
            for name, value in loss.logs.items():
                self.sums[name] += float(value)

    def add_up(self, total: Callable[[Sequence[float]], list[float]]) -> None:
        """Sums become those of all workers, which log the same names. `total` adds numbers over workers."""
        names = sorted(self.sums)
        size, *values = total([self.sample_size, *(self.sums[name] for name in names)])
        self.sample_size = int(size)
        self.sums.update(zip(names, values))

    def add_update(self, gnorm: float, clip_norm: float) -> None:
        self.num_updates += 1
        self.gnorm += gnorm
        self.num_clipped += 0 < clip_norm < gnorm

    def means(self) -> dict[str, float]:
        """loss, nll_loss (the loss, where no other is logged), ppl; accuracy in percent; other parts of the loss."""
        sums, size = self.sums, max(self.sample_size, 1)
        metrics = {"loss": sums["loss"] / size / LN2}
        has_nll = "nll_loss" in sums
        metrics["nll_loss"] = sums["nll_loss"] / max(sums["ntokens"], 1) / LN2 if has_nll else metrics["loss"]
        metrics["ppl"] = 2.0 ** min(metrics["nll_loss"], 100.0)
        if "n_correct" in sums:
            metrics["accuracy"] = 100 * sums["n_correct"] / max(sums["total"], 1)
        parts = [name for name in sums if name.endswith("_loss") and name != "nll_loss"]
        return metrics | {name: sums[name] / size / LN2 for name in parts}

    def rates(self) -> dict[str, float]:
        """wps (target tokens a second), ups, gnorm and clip (the share of updates that were clipped)."""
        seconds = max(time.perf_counter() - self.started_at, 1e-9)
        updates = max(self.num_updates, 1)
        return {
            "wps": self.sums["ntokens"] / seconds,
            "ups": self.num_updates / seconds,
            "gnorm": self.gnorm / updates,
            "clip": self.num_clipped / updates,
        }

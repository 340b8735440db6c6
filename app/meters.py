"""Sums of what criterions log, and the numbers that people read from them."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

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

    def add_up(self, gather: Callable[[Any], list[Any]]) -> None:
        """Sums become those of all workers; `gather` tells every worker's value to all."""
        everywhere = gather([self.sample_size, dict(self.sums)])
        self.sample_size, self.sums = 0, defaultdict(float)
        for sample_size, sums in everywhere:
            self.sample_size += sample_size
            for name, value in sums.items():
                self.sums[name] += value

    def add_update(self, gnorm: float, clip_norm: float) -> None:
        self.num_updates += 1
        self.gnorm += gnorm
        self.num_clipped += 0 < clip_norm < gnorm

    def means(self) -> dict[str, float]:
        """loss, nll_loss (the loss, where no other is logged), ppl; what `agreement` finds; other parts of the loss.

        Where batches are of groups, such as pairs of languages, each has its nll_loss_GROUP.
        """
        sums, size = self.sums, max(self.sample_size, 1)
        metrics = {"loss": sums["loss"] / size / LN2}
        has_nll = "nll_loss" in sums
        metrics["nll_loss"] = sums["nll_loss"] / max(sums["ntokens"], 1) / LN2 if has_nll else metrics["loss"]
        metrics["ppl"] = 2.0 ** min(metrics["nll_loss"], 100.0)
        metrics |= agreement(sums)
        parts = [name for name in sums if name.endswith("_loss") and name != "nll_loss"]
        metrics |= {name: sums[name] / size / LN2 for name in parts}
        groups = [name.removeprefix("ntokens_") for name in sums if name.startswith("ntokens_")]
        return metrics | {f"nll_loss_{g}": sums[f"nll_loss_{g}"] / max(sums[f"ntokens_{g}"], 1) / LN2 for g in groups}

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


def agreement(sums: Mapping[str, float]) -> dict[str, float]:
    """How well guesses fit, in percent, from what is logged; 0 where guesses or targets are all alike.

    accuracy from n_correct and total; f1 and mcc of two classes from n_AB, how often A was guessed for B; pearson from
    the sums of guesses x and targets y, and of their products.
    """
    metrics = {}
    if "n_correct" in sums:
        metrics["accuracy"] = 100 * sums["n_correct"] / max(sums["total"], 1)
    if "n_11" in sums:
        tn, fn, fp, tp = (sums[name] for name in ("n_00", "n_01", "n_10", "n_11"))
        metrics["f1"] = 100 * ratio(2 * tp, 2 * tp + fp + fn)
        metrics["mcc"] = 100 * ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    if "sum_xy" in sums:
        n, x, y = max(sums["total"], 1), sums["sum_x"], sums["sum_y"]
        variances = sums["sum_xx"] - x * x / n, sums["sum_yy"] - y * y / n
        spread = math.sqrt(max(variances[0], 0) * max(variances[1], 0))
        metrics["pearson"] = 100 * ratio(sums["sum_xy"] - x * y / n, spread)
    return metrics


def ratio(part: float, whole: float) -> float:
    """Their quotient; 0 where the whole is."""
    return part / whole if whole else 0.0

"""Whether one system is better than another: paired bootstrap resampling (Koehn, 2004), as sacreBLEU does it."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

from sacrebleu.significance import PairedTest

from app.errors import ConfigError
from app.scorers import Scorer


class Comparison(NamedTuple):
    """One score of two systems on the same lines."""

    name: str
    value: float
    interval: float  # half the width of the 95 % interval of the value
    baseline: float
    baseline_interval: float
    p_value: float  # how often a difference as large would come about by chance


def compare(
    systems: tuple[list[str], list[str]], references: list[str], scorers: Mapping[str, Scorer], samples: int
) -> list[Comparison]:
    """The first system against the second, the baseline. Raises `ConfigError` for a scorer that is not sacreBLEU's."""
    metrics = {name: getattr(scorer, "metric", None) for name, scorer in scorers.items()}
    if lacking := [name for name, metric in metrics.items() if metric is None]:
        raise ConfigError([f"scorer.{name}: knows no baseline; bleu, chrf and ter do" for name in lacking])
    logging.getLogger("sacrebleu").setLevel(logging.WARNING)
    named = [("baseline", systems[1]), ("system", systems[0])]
    _, found = PairedTest(named, metrics, [references], test_type="bs", n_samples=samples)()
    rows = []
    for name, (baseline, system) in zip(metrics, list(found.values())[1:], strict=True):  # the first are the names
        values = (system.score, system.ci, baseline.score, baseline.ci, system.p_value)
        rows.append(Comparison(name, *(float(value) for value in values)))
    return rows


def as_text(rows: list[Comparison]) -> str:
    """A line a comparison."""
    return "\n".join(
        f"{r.name:<5} {r.value:6.2f} ± {r.interval:.2f}  baseline {r.baseline:.2f} ± {r.baseline_interval:.2f}  "
        f"p = {r.p_value:.4f}"
        for r in rows
    )

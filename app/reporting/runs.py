"""The runs below a directory, as rows: what differs between them, how they stand, and their curves."""

import fcntl
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import DataError
from app.run_config import CONFIG, flat, stored
from app.runtime.outcome import read_outcome
from app.trackers.jsonl import FILE_NAME, read_metrics

LOCK = ".lock"
PLACES = ("run_dir", "cache_dir")  # differ between all runs, and say nothing
Value = str | float | int | bool | None
Points = list[tuple[float, float, float]]  # update, hours of training, value


@dataclass
class Run:
    """One run directory, read once."""

    name: str  # its path below the directory that was asked for
    state: str  # finished | running | stopped | failed | interrupted (killed, or on another machine) | queued
    reason: str  # of a failure or a stop
    settings: dict[str, Value]  # every setting, by its dotted key
    metric: str  # checkpoint.metric
    mode: str  # min | max
    best: float | None = None  # of `metric`, over all validations
    metrics: dict[str, float] = field(default_factory=dict)  # of the best validation
    updates: int = 0
    hours: float = 0.0  # of training
    speed: float | None = None  # target tokens a second, median of what was logged
    curves: dict[str, Points] = field(default_factory=dict)  # by "valid loss", "train lr", ...


def read_runs(directories: Sequence[Path]) -> list[Run]:
    """All runs at or below the directories, in the order of their names. Raises DataError where there is none."""
    found = sorted({path.parent for directory in directories for path in directory.rglob(CONFIG)})
    if not found:
        places = ", ".join(map(str, directories))
        raise DataError(f"{places}: no runs there (no {CONFIG}); name a directory that app.train has written")
    root = directories[0] if len(directories) == 1 else None
    return [read_run(path, name_below(path, root)) for path in found]


def name_below(path: Path, root: Path | None) -> str:
    return path.name if root is None or path == root else str(path.relative_to(root))


def read_run(path: Path, name: str) -> Run:
    """A run as its files say; lines that are only half written are left out."""
    settings = settings_of(path)
    lines = read_metrics(path / FILE_NAME)
    state, reason = state_of(path, bool(lines))
    run = Run(
        name,
        state,
        reason,
        settings,
        str(settings.get("checkpoint.metric", "loss")),
        str(settings.get("checkpoint.mode")),
    )
    if lines:
        run.updates = max(int(line["num_updates"]) for line in lines)
        run.hours = max((line.get("train_wall") or 0.0 for line in lines), default=0.0) / 3600
    speeds = sorted(line["wps"] for line in lines if line.get("wps") is not None)
    run.speed = speeds[len(speeds) // 2] if speeds else None
    judged = [line for line in lines if line["kind"] == "valid" and line.get(run.metric) is not None]
    if judged:
        best = (max if run.mode == "max" else min)(judged, key=lambda line: float(line[run.metric]))
        run.best, run.metrics = best[run.metric], numbers(best)
    run.curves = curves_of(lines)
    return run


def settings_of(run_dir: Path) -> dict[str, Value]:
    """A stored configuration, flat. Lists are one value."""
    values = flat(stored(run_dir / CONFIG))
    plain = (str, float, int, bool, type(None))
    return {k: v if isinstance(v, plain) else json.dumps(v) for k, v in values.items() if k not in PLACES}


def state_of(path: Path, has_metrics: bool) -> tuple[str, str]:
    """What the run does now, and why if it does nothing."""
    if is_locked(path / LOCK):
        return "running", ""
    outcome = read_outcome(path)
    if outcome is not None:
        return outcome["state"], outcome["reason"]
    return ("interrupted", "") if has_metrics else ("queued", "")


def is_locked(path: Path) -> bool:
    """Whether a process holds the run's lock, on this machine or where the file system shares locks."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def curves_of(lines: list[dict[str, Any]]) -> dict[str, Points]:
    """Every metric that was logged, over updates; training time of validations is that of the line before."""
    curves: dict[str, Points] = {}
    hours = 0.0
    for line in lines:
        hours = max(hours, (line.get("train_wall") or 0.0) / 3600)
        for name, value in numbers(line).items():
            curves.setdefault(f"{line['kind']} {name}", []).append((line["num_updates"], hours, value))
    return curves


def numbers(line: dict[str, Any]) -> dict[str, float]:
    """The metrics of a line: what is neither its key nor its clock, and finite."""
    no_metric = ("kind", "num_updates", "time", "train_wall")
    given = {name: value for name, value in line.items() if name not in no_metric}
    return {n: v for n, v in given.items() if isinstance(v, (int, float)) and math.isfinite(v)}


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys of settings that are not the same in all runs; those that only follow from others are kept too."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]


def thinned(points: Points, most: int) -> Points:
    """At most about `most` points: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= most:
        return points
    kept: list[int] = [0]
    stretches = max(1, (most - 2) // 2)
    for i in range(stretches):
        low, high = (1 + i * (len(points) - 2) // stretches, 1 + (i + 1) * (len(points) - 2) // stretches)
        stretch = range(low, high)
        kept += sorted({min(stretch, key=lambda j: points[j][2]), max(stretch, key=lambda j: points[j][2])})
    return [points[i] for i in [*kept, len(points) - 1]]

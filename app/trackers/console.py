"""Progress for a person: a bar on a terminal, lines that are easy to read and to grep elsewhere."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import rich
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from app.trackers import Tracker

ORDER = ("loss", "nll_loss", "ppl", "bleu", "chrf", "wps", "ups", "mfu", "lr", "gnorm", "clip", "padding")
SHARES = {"clip", "padding", "mfu"}  # logged as 0..1, shown in percent, as times of a profile are
UNITS = {"wps": "tok/s", "padding": "pad"}  # how the bar calls them
ON_BAR = ("loss", "ppl", "wps", "mfu", "lr", "padding")  # the most wanted first: a narrow terminal cuts off the end


class ConsoleTracker(Tracker):
    """Shows the newest training numbers on a bar and prints validation; without a terminal a line for each.

    The lines go through the loggers `train` and `valid`, so that the run's log file has them in either case.
    """

    def __init__(self, cfg: None, run_dir: Path):
        self.limits: dict[str, float] = {}
        self.progress: Progress | None = None
        self.bar = TaskID(0)
        self.started_at = time.monotonic()
        self.share_before: float | None = None

    def start(self, config: dict[str, Any], num_updates: int) -> None:
        self.limits = {name: config["trainer"][name] for name in ("max_update", "max_epoch", "stop_time_hours")}
        self.started_at = time.monotonic()
        console = rich.get_console()
        if not console.is_interactive:
            return
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=min(24, max(4, console.width - 100))),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[eta]}  {task.fields[numbers]}", style="default"),
            console=console,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self.bar = self.progress.add_task("starting", total=1.0, numbers="", eta="")
        self.progress.start()

    def log(self, kind: str, num_updates: int, metrics: dict[str, float]) -> None:
        eta = self._eta(num_updates, metrics) if kind == "train" else None
        where = f"update={num_updates}" + (f"/{self.limits['max_update']}" if self.limits.get("max_update") else "")
        if "epoch" in metrics:
            where += f" epoch={_number('epoch', metrics['epoch'])}"
        line = " ".join([where, *(f"{name}={_number(name, metrics[name])}" for name in _ordered(metrics))])
        line += f" eta={eta}" if eta is not None else ""
        logging.getLogger(kind).info(line, extra={"on_bar": self.progress is not None and kind == "train"})
        if self.progress is not None and kind == "train":
            shown = (f"{UNITS.get(name, name)} {_number(name, metrics[name])}" for name in ON_BAR if name in metrics)
            self.progress.update(
                self.bar,
                completed=share_done(self.limits, num_updates, metrics),
                description=f"epoch {_number('epoch', metrics.get('epoch', 1))} update {num_updates}",
                numbers="  ".join(shown),
                eta="" if eta is None else f"eta {eta}",
            )

    def finish(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def _eta(self, num_updates: int, metrics: Mapping[str, float]) -> timedelta | None:
        """The time left at the average speed since the first line."""
        done, now = share_done(self.limits, num_updates, metrics), time.monotonic()
        if self.share_before is None:
            self.share_before, self.started_at = done, now
        if done <= self.share_before:  # nothing to measure by, as in the first line and within an epoch of max_epoch
            return None
        return timedelta(seconds=round((now - self.started_at) * (1 - done) / (done - self.share_before)))


def share_done(limits: Mapping[str, float], num_updates: int, metrics: Mapping[str, float]) -> float:
    """The share of the run that is done, 0..1, by the limit nearest to its end. The running epoch does not count."""
    done = {
        "max_update": num_updates,
        "max_epoch": metrics.get("epoch", 1) - 1,
        "stop_time_hours": metrics.get("train_wall", 0.0) / 3600,
    }
    return min(1.0, max((done[name] / limit for name, limit in limits.items() if limit), default=0.0))


def _ordered(metrics: Mapping[str, float]) -> list[str]:
    """The metrics' names, the well-known ones first, without what the line says elsewhere."""
    rest = sorted(name for name in metrics if name not in ORDER and name not in ("epoch", "num_updates"))
    return [name for name in ORDER if name in metrics] + rest


def _number(name: str, value: float) -> str:
    """Four significant digits, or what the metric's kind asks for."""
    if name in SHARES or name.startswith("time_"):
        return f"{100 * value:.1f}%"
    if name == "lr":
        return f"{value:.3g}"
    if isinstance(value, int) or value != value or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}"

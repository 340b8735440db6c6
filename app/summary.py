"""What a run came to: the table that `app.train` ends with."""

import logging
import resource
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import rich
from rich import box
from rich.table import Table

from app.config import CheckpointConfig
from app.curves import draw_curves
from app.errors import UserError
from app.trackers.jsonl import FILE_NAME, read_metrics

logger = logging.getLogger(__name__)


def conclude(
    run_dir: Path,
    checkpoint: CheckpointConfig,
    num_parameters: int,
    generates: bool = True,
    refines: bool = False,
    lang_pairs: Sequence[str] = (),
) -> None:
    """Draw the curves, print the table where log messages go, and say what to type next.

    `Task` says what `generates`, `refines` and `lang_pairs` are.
    """
    curves: list[Path] = []
    try:
        curves = draw_curves([run_dir], run_dir)
    except (UserError, OSError) as error:  # a picture is no reason to fail
        logger.warning("no curves were drawn: %s", error)
    run_dir = shortest(run_dir)
    table = Table(box=box.ROUNDED, show_header=False, border_style="dim")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in summary(run_dir, checkpoint, num_parameters).items():
        table.add_row(name, value)
    console = rich.get_console()
    console.print(table, markup=False, highlight=False)
    several = lang_pairs if len(lang_pairs) > 1 else ()
    after = [f"curves     {shortest(path)}" for path in curves[:1]]
    if generates:
        given = "".join([" search=iterative_refinement" * refines, *(f" lang_pair={pair}" for pair in several[:1])])
        after += [f"score      python -m app.generate checkpoint={run_dir} split=test{given}"]
        after += [f"translate  python -m app.interactive checkpoint={run_dir}{given}"]
    else:
        after += [f"measure    python -m app.evaluate checkpoint={run_dir} split=test"]
    console.print(
        "\n".join(after), markup=False, highlight=False, soft_wrap=True
    )  # long lines stay whole, to be copied


def summary(run_dir: Path, checkpoint: CheckpointConfig, num_parameters: int) -> dict[str, str]:
    """The rows of the table, from the run's `metrics.jsonl` and this process; rows without a number are left out."""
    lines = read_metrics(run_dir / FILE_NAME)
    train = [line for line in lines if line["kind"] == "train"]
    rows = {"run": str(run_dir), "parameters": f"{num_parameters:,}"}
    if lines:
        rows["updates"] = f"{lines[-1]['num_updates']:,}, the last in epoch {lines[-1].get('epoch', '?')}"
    if train:
        rows["training time"] = str(timedelta(seconds=round(train[-1]["train_wall"])))
        rows["speed"] = f"{mean(train, 'wps'):,.0f} target tokens a second, {mean(train, 'ups'):.2f} updates a second"
        if share := mean(train, "mfu"):
            rows["speed"] += f", {100 * share:.0f}% of the fastest products"
        rows["padding"] = f"{100 * mean(train, 'padding'):.1f}% of all positions"
    return {**rows, **best(lines, checkpoint), "peak memory": peak_memory()}


def shortest(path: Path) -> Path:
    """The path as a person would type it here."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def best(lines: list[dict[str, Any]], checkpoint: CheckpointConfig) -> dict[str, str]:
    """The row of the best validation, with its other scores beside it; no row without a validation."""
    metric = checkpoint.metric
    valid = [line for line in lines if line["kind"] == "valid" and line.get(metric) is not None]
    if not valid:
        return {}
    line = (max if checkpoint.mode == "max" else min)(valid, key=lambda line: float(line[metric]))
    others = [name for name in ("loss", "ppl", "bleu", "chrf") if name != metric and line.get(name) is not None]
    beside = f" ({', '.join(f'{name} {line[name]:.2f}' for name in others)})" if others else ""
    return {f"best {metric}": f"{line[metric]:.2f} at update {line['num_updates']:,}{beside}"}


def mean(lines: list[dict[str, Any]], name: str) -> float:
    numbers = [line[name] for line in lines if line.get(name) is not None]
    return sum(numbers) / len(numbers) if numbers else 0.0


def peak_memory() -> str:
    """The most memory that this process has held, and the most on the GPU where it used one."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
    if torch.cuda.is_available():
        text += f", GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    return text

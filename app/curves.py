"""Learning curves of runs, drawn from their `metrics.jsonl` as `curves.svg` and `curves.png`.

`python -m app.curves RUN_DIR [RUN_DIR ...]` draws one run, or compares several in one picture.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.errors import DataError, UserError
from app.trackers.jsonl import FILE_NAME, read_metrics

COLOURS = ("#3366cc", "#dc5c1e", "#2a9d5c", "#8e4fc4", "#c2a11a", "#12a0a8", "#d14788", "#6b7280")
INK, FAINT = "#30343b", "#d9dce1"
SCORES = ("bleu", "chrf")  # validation scores worth a panel, each drawn where some run has it
PANELS = {"loss": "nll loss (bits per token)", "bleu": "valid BLEU", "chrf": "valid chrF", "lr": "learning rate"}
HEIGHTS = {"loss": 3.2, "bleu": 1.8, "chrf": 1.8, "lr": 1.1}  # inches

Line = tuple[list[float], list[float]]


def draw_curves(run_dirs: Sequence[Path], out_dir: Path) -> list[Path]:
    """Write `curves.svg` and `curves.png` into `out_dir` and return their paths.

    Raises `DataError` where a run has no metrics, and `UserError` where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("curves: matplotlib is not installed; pip install 'seqwright[plot]'") from None
    runs = {name: _metrics(run_dir) for name, run_dir in zip(_names(run_dirs), run_dirs)}
    scored = [kind for kind in SCORES if any(_line(run, "valid", kind)[0] for run in runs.values())]
    kinds = ["loss", *scored, "lr"]
    heights = [HEIGHTS[kind] for kind in kinds]
    figure = Figure(figsize=(8, sum(heights) + 1.2), layout="constrained")
    panels = figure.subplots(len(kinds), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for kind, axes in zip(kinds, panels):
        _style(axes, PANELS[kind])
        for (name, run), colour in zip(runs.items(), itertools.cycle(COLOURS)):
            _draw(axes, kind, run, colour, f"{name} " if len(runs) > 1 else "")
        if kind == "loss" or (kind in SCORES and len(runs) > 1):
            axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=1 if len(runs) < 4 else 2)
    panels[-1].set_xlabel("updates", color=INK)
    figure.align_ylabels(panels)
    figure.suptitle(next(iter(runs)) if len(runs) == 1 else f"{len(runs)} runs", color=INK, fontsize=12)
    paths = [out_dir / "curves.svg", out_dir / "curves.png"]
    out_dir.mkdir(parents=True, exist_ok=True)
    for path in paths:
        figure.savefig(path, dpi=150, facecolor="white")
    return paths


def _draw(axes: Any, kind: str, run: list[dict[str, Any]], colour: str, name: str) -> None:
    """One run's lines in one panel.

    `name` is empty where it is the only run: its best value then stands at its point, else in the legend.
    """
    if kind == "lr":
        axes.plot(*_line(run, "train", "lr"), color=colour, linewidth=1.4)
        return
    metric = "nll_loss" if kind == "loss" else kind
    if kind == "loss":
        axes.plot(*_line(run, "train", metric), color=colour, linewidth=1.2, alpha=0.45, label=f"{name}train")
    updates, values = _line(run, "valid", metric)
    if not updates:
        return
    best = (min if kind == "loss" else max)(range(len(values)), key=values.__getitem__)
    label = f"{name}valid" + (f", best {values[best]:.2f}" if name else "")
    axes.plot(updates, values, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=label)
    ring = {"color": colour, "markersize": 8, "markerfacecolor": "white", "markeredgewidth": 1.8}
    axes.plot(updates[best], values[best], "o", **ring)
    if not name:
        offset = (0, 8 if kind == "loss" else -16)  # points; on the side where the curve is not
        place = {"xytext": offset, "textcoords": "offset points", "ha": "center", "fontsize": 9}
        axes.annotate(f"{values[best]:.2f}", (updates[best], values[best]), color=colour, **place)


def _style(axes: Any, label: str) -> None:
    axes.set_ylabel(label, color=INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.margins(x=0.02, y=0.15)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(FAINT)


def _line(run: list[dict[str, Any]], kind: str, metric: str) -> Line:
    """Updates and values of one metric, where it was logged and finite."""
    here = [line for line in run if line["kind"] == kind and line.get(metric) is not None]
    return [line["num_updates"] for line in here], [line[metric] for line in here]


def _metrics(run_dir: Path) -> list[dict[str, Any]]:
    lines = read_metrics(run_dir / FILE_NAME)
    if not lines:
        raise DataError(f"{run_dir / FILE_NAME}: no metrics there; name a run that has logged something")
    return lines


def _names(run_dirs: Sequence[Path]) -> list[str]:
    """Short names that tell the directories apart: their paths below what they have in common."""
    resolved = [run_dir.resolve() for run_dir in run_dirs]
    common = Path(os.path.commonpath([run_dir.parent for run_dir in resolved]))
    return [str(run_dir.relative_to(common)) for run_dir in resolved]


def main() -> None:
    parser = argparse.ArgumentParser(prog="app.curves", description="Draw the learning curves of runs.")
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="directory with a metrics.jsonl")
    parser.add_argument("--out", type=Path, help="where to write; else beside one run, or here for several")
    args = parser.parse_args()
    out_dir = args.out or (args.run_dirs[0] if len(args.run_dirs) == 1 else Path())
    try:
        for path in draw_curves(args.run_dirs, out_dir):
            print(path)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""`python -m app.report outputs/sweeps/NAME`: the runs of a sweep side by side, as a page, a CSV and a table.

Reads the files of the runs only: no account, no server. Runs that are still going on are shown as they stand.
"""

import argparse
import csv
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rich
from rich import box
from rich.table import Table

from app.errors import StorageError, UserError
from app.reporting.page import columns, page
from app.reporting.runs import Run, read_runs


def report(directories: Sequence[Path], out_dir: Path) -> list[Run]:
    """Write `report.html` and `report.csv` into `out_dir`; returns the runs, best first."""
    runs = by_result(read_runs(directories))
    title = " ".join(str(directory) for directory in directories)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        write(out_dir / "report.html", page(title, runs))
        write(out_dir / "report.csv", as_csv(runs))
    except OSError as error:
        raise StorageError(f"{error.filename or out_dir}: {error.strerror}; say with --out where to write") from None
    return runs


def by_result(runs: list[Run]) -> list[Run]:
    """The best first, those without a result last."""

    def place(run: Run) -> tuple[bool, float]:
        return run.best is None, 0.0 if run.best is None else run.best * (-1 if run.mode == "max" else 1)

    return sorted(runs, key=place)


def write(path: Path, text: str) -> None:
    """Whole or not at all: a browser may be reading."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def as_csv(runs: Sequence[Run]) -> str:
    """A line a run: how it stands, its result, all settings that differ, and all metrics of its best validation."""
    asked, others = columns(runs)
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    own = ("name", "state", "updates", "hours", "speed", "metric", "best")
    lines.writerow([*own, *asked, *others, *metrics])
    for run in runs:
        values = [getattr(run, name) for name in own]
        lines.writerow([*values, *map(run.settings.get, [*asked, *others]), *map(run.metrics.get, metrics)])
    return text.getvalue()


def as_table(runs: Sequence[Run], most: int) -> Table:
    """The best `most` runs, for a terminal: by what was varied, or by name where nothing was."""
    asked, _ = columns(runs)
    table = Table(box=box.SIMPLE_HEAD)
    left = ["state"] if asked else ["run", "state"]
    for name in (*asked, *left, f"best {runs[0].metric}", "updates", "hours", "tok/s"):
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for run in runs[:most]:
        best = "" if run.best is None else f"{run.best:.4g}"
        speed = "" if run.speed is None else f"{run.speed:,.0f}"
        what = ["" if run.settings.get(key) is None else str(run.settings[key]) for key in asked] or [run.name]
        table.add_row(*what, run.state, best, f"{run.updates:,}", f"{run.hours:.2f}", speed)
    if len(runs) > most:
        table.caption = f"and {len(runs) - most} more: report.csv has all"
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="app.report", description="The runs of a sweep as a page, a CSV and a table.")
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="a sweep, or any directory with runs")
    parser.add_argument("--out", type=Path, help="where report.html and report.csv go; else into the first DIR")
    parser.add_argument("--rows", type=int, default=20, help="runs in the table on the terminal (20)")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="write again every SECONDS until no run goes on")
    args = parser.parse_args()
    out_dir = args.out or args.directories[0]
    try:
        runs = report(args.directories, out_dir)
        while args.watch and any(run.state in ("running", "queued") for run in runs):
            time.sleep(args.watch)
            runs = report(args.directories, out_dir)
    except UserError as error:
        print(f"app.report: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    rich.get_console().print(as_table(runs, args.rows), markup=False, highlight=False)
    print(out_dir / "report.html", out_dir / "report.csv", sep="\n")


if __name__ == "__main__":
    main()

"""Runs as one self-contained HTML page: sortable table, overlaid curves, parallel coordinates. No network is needed."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.reporting.runs import Run, differing, thinned

HERE = Path(__file__).parent
MOST_POINTS = 60_000  # of all curves together, so that hundreds of runs still open at once


def page(title: str, runs: Sequence[Run]) -> str:
    """The whole page, as text."""
    parts = {
        "title": html.escape(title),
        "style": (HERE / "page.css").read_text(encoding="utf-8"),
        "script": (HERE / "page.js").read_text(encoding="utf-8"),
        "data": json.dumps(content(runs), separators=(",", ":")).replace("<", "\\u003c"),
    }
    text = (HERE / "page.html").read_text(encoding="utf-8")
    for name, part in parts.items():  # the data last: nothing that stands in it is replaced
        text = text.replace("{{" + name + "}}", part)
    return text


def content(runs: Sequence[Run]) -> dict[str, Any]:
    """What the script draws."""
    asked, others = columns(runs)
    curves = sum(len(run.curves) for run in runs)
    most = max(12, MOST_POINTS // max(1, curves))
    metrics = dict.fromkeys(name for run in runs for name in run.metrics)
    return {
        "metric": runs[0].metric,
        "mode": runs[0].mode,
        "columns": asked,
        "more": [*others, *metrics],
        "runs": [as_json(run, [*asked, *others], most) for run in runs],
    }


def as_json(run: Run, keys: Sequence[str], most_points: int) -> dict[str, Any]:
    curves = {
        name: [
            [update, round(hours, 4), float(f"{value:.5g}")] for update, hours, value in thinned(points, most_points)
        ]
        for name, points in run.curves.items()
    }
    settings = {key: run.settings.get(key) for key in keys}
    own = ("name", "state", "reason", "best", "updates", "hours", "speed", "metrics")
    return {**{name: getattr(run, name) for name in own}, "settings": settings, "curves": curves}


def columns(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Settings that differ: those that the names of the runs name, and the others, which mostly follow from them.

    Where the names name none, as for runs that were not made by a sweep, all are of the first kind.
    """
    keys = differing(runs)
    named = [key for key in keys if any(f"{key}=" in run.name for run in runs)]
    return (named, [key for key in keys if key not in named]) if named else (keys, [])

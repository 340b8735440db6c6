"""`metrics.jsonl`: the numbers of a run as a file, a JSON object a line. Always written; the curves come from it."""

import json
import math
import time
from pathlib import Path
from typing import Any

from app.trackers import Tracker

FILE_NAME = "metrics.jsonl"


class JsonlTracker(Tracker):
    """Lines of `kind`, `num_updates`, `time` (Unix seconds) and the metrics; numbers are numbers, non-finite ones null.

    A line is appended with one write, so that a killed run leaves at most its last line broken. A resumed run drops
    that line and those later than its checkpoint, and does not repeat a line that is there already.
    """

    def __init__(self, cfg: None, run_dir: Path):
        self.path = run_dir / FILE_NAME
        self.written: set[tuple[str, int]] = set()

    def start(self, config: dict[str, Any], num_updates: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_metrics(self.path) if line["num_updates"] <= num_updates] if num_updates else []
        self.written = {(line["kind"], line["num_updates"]) for line in kept}
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)

    def log(self, kind: str, num_updates: int, metrics: dict[str, float]) -> None:
        if (kind, num_updates) in self.written:
            return
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = {"kind": kind, "num_updates": num_updates, "time": round(time.time(), 3), **numbers}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.written.add((kind, num_updates))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, in order; none where there is no file. Broken lines are left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and {"kind", "num_updates"} <= line.keys():
            lines.append(line)
    return lines

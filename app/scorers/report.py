"""Scores as a person and as a program reads them."""

import json

from app.scorers import Score


def as_table(scores: list[Score]) -> str:
    """A line a score: its name, value, parts and signature."""
    return "\n".join(f"{s.name:<5} {s.value:6.2f}  {s.text}  [{s.signature}]" for s in scores)


def as_json(scores: list[Score]) -> str:
    """A list of objects with the fields of `Score`."""
    return json.dumps([score._asdict() for score in scores], ensure_ascii=False)

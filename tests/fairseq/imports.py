"""Imports in this process, and data-bin directories of invented dictionaries."""

from pathlib import Path

from app.cli import store_schema
from app.fairseq.importing import import_checkpoint
from tests.runs import configured


def write_dictionary(path: Path, pieces: list[str]) -> None:
    """A dict.txt of these pieces, the four specials left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{piece} 1\n" for piece in pieces if piece not in ("<s>", "<pad>", "</s>", "<unk>")))


def run_import(checkpoint: Path, data: Path, output: Path, *overrides: str) -> list[str]:
    """What `app.import_fairseq` does; the overrides of `app.train` that it prints."""
    given = [f"checkpoint={checkpoint}", f"data={data}", f"output={output}", *overrides]
    cfg, plugins = configured(given, "import_fairseq")
    store_schema("train")
    return import_checkpoint(cfg, plugins["tokenizer"])

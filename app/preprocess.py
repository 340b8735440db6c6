"""`python -m app.preprocess task.data=DIR`: what `app.train` does before its first update, on its own."""

import time
from pathlib import Path
from typing import Any

from app.cli import command
from app.config import PreprocessConfig


def run(cfg: PreprocessConfig, plugins: dict[str, Any]) -> float | None:
    """Prepare the splits and print a table of them. Returns the number of pairs."""
    from rich.console import Console
    from rich.table import Table

    task = plugins["task"](plugins["tokenizer"], cfg.batching)
    start = time.perf_counter()
    task.prepare(Path(cfg.cache_dir))
    learnt = time.perf_counter() - start
    table = Table("split", "pairs", "source tokens", "target tokens", "left out", "padding", "seconds")
    pairs = 0
    splits = cfg.splits or task.splits()
    for split in splits:
        start = time.perf_counter()
        dataset = task.dataset(split)
        padding = task.get_batch_iterator(dataset, epoch=1).padding
        tokens = (dataset.source_lengths.sum(), dataset.target_lengths.sum())
        numbers = (len(dataset), *tokens, sum(dataset.left_out.values()))
        seconds = time.perf_counter() - start
        table.add_row(split, *(f"{number:,}" for number in numbers), f"{padding:.1%}", f"{seconds:.2f}")
        pairs += len(dataset)
    console = Console()
    console.print(table)
    console.print(
        f"vocabularies: {len(task.source_vocabulary):,} and {len(task.target_vocabulary):,} pieces ({learnt:.2f} s)"
    )
    console.print(f"cache: {Path(cfg.cache_dir).absolute()}", soft_wrap=True)
    if cfg.output is not None:
        from app.fairseq.data import write_data_bin

        write_data_bin(task, splits, Path(cfg.output))
        console.print(f"data-bin: {Path(cfg.output).absolute()}", soft_wrap=True)
    return float(pairs)


main = command("preprocess", run)

if __name__ == "__main__":
    main()

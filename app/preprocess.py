"""`python -m app.preprocess task.data=DIR`: what `app.train` does before its first update, on its own."""

import logging
import time
from pathlib import Path
from typing import Any

from app.cli import command
from app.roots import PreprocessConfig

logger = logging.getLogger("app.preprocess")  # as a program this module is __main__


def run(cfg: PreprocessConfig, plugins: dict[str, Any]) -> float | None:
    """Prepare the splits and print a table of them. Returns the number of pairs."""
    from rich.console import Console
    from rich.table import Table

    from app.interfaces import Shard
    from app.tasks.shares import MissingSharesError, encoding

    task = plugins["task"](plugins["tokenizer"], cfg.batching)
    start = time.perf_counter()
    task.prepare(Path(cfg.cache_dir))
    learnt = time.perf_counter() - start
    table = Table("split", "pairs", "source tokens", "target tokens", "left out", "padding", "seconds")
    pairs, unfinished = 0, 0
    splits = cfg.splits or task.splits()
    for split in splits:
        start = time.perf_counter()
        try:
            with encoding(Shard(cfg.share, cfg.num_shares)):
                dataset = task.dataset(split)
        except MissingSharesError as missing:
            logger.info("%s: share %d of %d is encoded; %s", split, cfg.share + 1, cfg.num_shares, missing)
            unfinished += 1
            continue
        padding = task.get_batch_iterator(dataset, epoch=1).padding
        tokens = (dataset.source_lengths.sum(), dataset.target_lengths.sum())
        numbers = (len(dataset), *tokens, sum(dataset.left_out.values()))
        seconds = time.perf_counter() - start
        table.add_row(split, *(f"{number:,}" for number in numbers), f"{padding:.1%}", f"{seconds:.2f}")
        pairs += len(dataset)
    console = Console()
    if table.row_count:
        console.print(table)
    console.print(
        f"vocabularies: {len(task.source_vocabulary):,} and {len(task.target_vocabulary):,} pieces ({learnt:.2f} s)"
    )
    console.print(f"cache: {Path(cfg.cache_dir).absolute()}", soft_wrap=True)
    if cfg.output is not None and not unfinished:
        from app.fairseq.data import write_data_bin

        write_data_bin(task, splits, Path(cfg.output))
        console.print(f"data-bin: {Path(cfg.output).absolute()}", soft_wrap=True)
    return float(pairs)


main = command("preprocess", run)

if __name__ == "__main__":
    main()

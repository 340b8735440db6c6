"""`python -m benchmarks.curves DATA`: does every fast path learn as plain fp32 does? DATA is Multi30k's directory.

Model A of benchmarks.speed is trained on English and German in small batches, a run of `app.train` a row, one after
the other, and measured on the validation split as it goes:

* `plain`: fp32 as fairseq writes a step (benchmarks/reference.py), and torch's Adam by a loop over the parameters
* `fp32`, `bf16`: what `app.train` does; `bf16, dropout as fairseq's` and so on: with one lever taken out
* `plain, seed 2`: the same from other weights in another order, which says how far apart chance alone takes two runs

Rows of one seed start from the same weights and have the same batches in the same order. Stopped, it goes on by the
same command where it was; rows that are done are not trained again. The exit code is 1 where the last loss of a row is
more than a hundredth away from that of plain. A JSON line a row goes to outputs/bench/curves.jsonl.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from app.trackers.jsonl import FILE_NAME, read_metrics
from app.train import main as train
from benchmarks.reference import PATCHES, without
from benchmarks.speed import MODELS
from benchmarks.tables import Figures

MEASURED = 6  # validations of a run
ALLOWED = 0.01  # of plain's loss
WARM_UP = 500  # updates
SETTINGS = [*MODELS["A"], "model.share_all_embeddings=true", "model.dropout=0.1", "trainer.clip_norm=1.0"]
SETTINGS += ["task.source_lang=en", "task.target_lang=de", "task.joined_dictionary=true", "tokenizer.vocab_size=8000"]
SETTINGS += ["task.max_source_positions=256", "task.max_target_positions=256", "batching.max_tokens=512"]
SETTINGS += ["optimizer.lr=7e-4", "lr_scheduler=polynomial_decay", "trainer.validate_interval=0"]
SETTINGS += ["trainer.decode_valid=false"]
PLAIN = ("precision=fp32", "optimizer._target_=torch.optim.Adam", "+optimizer.foreach=false")


@dataclass(frozen=True)
class Row:
    """A way to train the model."""

    name: str
    lacks: frozenset[str]  # keys of benchmarks.reference.PATCHES
    overrides: tuple[str, ...]


def all_rows() -> Iterator[Row]:
    yield Row("plain", frozenset(PATCHES), PLAIN)
    yield Row("fp32", frozenset(), ("precision=fp32",))
    yield Row("bf16", frozenset(), ("precision=bf16",))
    for lever in PATCHES:
        yield Row(f"bf16, {lever} as fairseq's", frozenset([lever]), ("precision=bf16",))
    yield Row("plain, seed 2", frozenset(PATCHES), (*PLAIN, "seed=2"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory with train.en, train.de, valid.en, valid.de (or .gz)")
    parser.add_argument("--updates", type=int, default=1500, help="of each run")
    parser.add_argument("--only", nargs="*", default=[""], help="rows whose names contain one of these, and plain")
    parser.add_argument("--directory", type=Path, default=Path("outputs/bench/curves"), help="where the runs are")
    parser.add_argument("overrides", nargs="*", help="more settings of app.train, such as trainer.num_threads=1")
    args = parser.parse_args()
    rows = [row for row in all_rows() if row.name == "plain" or any(part in row.name for part in args.only)]
    shared = [f"task.data={args.data}", *SETTINGS, *args.overrides]
    results = compared(rows, args.updates, args.directory, shared)
    lines = "".join(f"{json.dumps(result)}\n" for result in results)
    args.directory.with_suffix(".jsonl").write_text(lines, encoding="utf-8")
    Console().print(shown(results))
    sys.exit(any(abs(result["times plain"] - 1) > ALLOWED for result in results))


def compared(rows: Sequence[Row], updates: int, directory: Path, shared: list[str]) -> list[dict[str, Any]]:
    """A result for each row, the first of which is the one that the others are compared with."""
    every, results = max(1, updates // MEASURED), list[dict[str, Any]]()
    length = [f"trainer.max_update={updates}", f"trainer.validate_interval_updates={every}"]
    length += [f"lr_scheduler.warmup_updates={min(WARM_UP, updates)}"]
    for row in rows:
        run_dir = directory / f"{row.name} {updates}".replace(",", "").replace("'", "").replace(" ", "-")
        losses = trained(row.lacks, [f"run_dir={run_dir}", *shared, *length, *row.overrides], updates, run_dir)
        first = results[0]["loss"] if results else losses
        results.append({"row": row.name, "loss": losses, "times plain": losses[updates] / first[updates]})
    return results


def trained(lacks: Collection[str], overrides: list[str], updates: int, run_dir: Path) -> dict[int, float]:
    """The losses of validation of a run that was made, or is made now, in a process of its own: {update: loss}."""
    losses = validations(run_dir)
    if updates not in losses:
        process = multiprocessing.get_context("spawn").Process(target=work, args=(lacks, overrides))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{run_dir}: exit code {process.exitcode}; the reason stands above")
        losses = validations(run_dir)
    return losses


def work(lacks: Collection[str], overrides: list[str]) -> None:
    """`app.train` as a command, without some levers."""
    sys.argv = ["app.train", *overrides]
    with without(lacks):
        train()


def validations(run_dir: Path) -> dict[int, float]:
    lines = read_metrics(run_dir / FILE_NAME)
    return {line["num_updates"]: line["loss"] for line in lines if line["kind"] == "valid"}


def shown(results: list[dict[str, Any]]) -> Figures:
    """The label-smoothed losses in bits a token, and how far the last one is from plain's."""
    updates = results[0]["loss"]
    table = Figures("row", *map(str, updates), "away from plain", title="loss of validation after so many updates")
    for result in results:
        losses = (f"{result['loss'][update]:.3f}" for update in updates)
        table.add_row(result["row"], *losses, f"{100 * (result['times plain'] - 1):+.2f}%")
    return table


if __name__ == "__main__":
    main()

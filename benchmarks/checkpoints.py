"""`python -m benchmarks.checkpoints`: what a checkpoint every 200 updates costs a run.

A Transformer of 3+3 layers of width 256 is trained on the embedded corpus by `app.train`'s own code, in pairs of runs
that differ in nothing but `checkpoint.save_interval_updates`; one of a pair follows the other, and every second pair
has them the other way round, so that other load on the machine hits both alike. Time is that between the first update
and the last, the final save left out: by the clock, and of the processor, which other load does not change and which
counts the thread that writes. The table has medians; the cost is that of the pairs' ratios. One JSON line goes to
outputs/bench/checkpoints.jsonl.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import rich
from hydra import compose, initialize_config_dir

from app.cli import configure_node, store_schema
from app.compose import CONF
from app.data.demo_corpus import write_demo_corpus
from app.train import run
from app.trainer import Trainer
from benchmarks.tables import Figures

OUTPUT = Path("outputs/bench/checkpoints.jsonl")
SETTINGS = [
    "task.source_lang=en",
    "task.target_lang=de",
    "model=transformer_iwslt_de_en",
    "model.encoder_layers=3",
    "model.decoder_layers=3",
    "model.encoder_embed_dim=256",
    "trainer.validate_interval=0",
    "trainer.decode_valid=false",
    "trainer.log_interval=100000",
    "checkpoint.save_interval_minutes=0",
    "task.max_source_positions=256",
    "task.max_target_positions=256",
    "batching.max_tokens=1024",
]


class Seconds(NamedTuple):
    """How long a run took."""

    clock: float
    processor: float


def seconds(directory: Path, corpus: Path, updates: int, interval: int, more: list[str]) -> Seconds:
    """Training time of one run that saves every `interval` updates (0: at its end only)."""
    marks: dict[int, Seconds] = {}
    after_update = Trainer.after_update

    def timed(trainer: Trainer, losses: Any) -> None:
        after_update(trainer, losses)
        if trainer.num_updates == updates:
            trainer.saver.wait()
        marks[trainer.num_updates] = Seconds(time.perf_counter(), time.process_time())

    given = [
        f"task.data={corpus}",
        f"cache_dir={corpus}/cache",
        f"run_dir={directory}",
        f"trainer.max_update={updates}",
    ]
    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose("train", [*SETTINGS, *given, f"checkpoint.save_interval_updates={interval}", *more])
    with patch.object(Trainer, "after_update", timed), patch("app.summary.conclude"):
        run(*configure_node(node, "train"))
    first, last = marks[1], marks[updates]
    return Seconds(last.clock - first.clock, last.processor - first.processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=800, help="updates of a run")
    parser.add_argument("--interval", type=int, default=200, help="updates between checkpoints")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs")
    parser.add_argument("overrides", nargs="*", help="of app.train, such as checkpoint.save_async=false")
    args = parser.parse_args()
    without: list[Seconds] = []
    having: list[Seconds] = []
    with TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        write_demo_corpus(corpus)
        for pair in range(args.pairs):
            order = [(without, 0), (having, args.interval)]
            for times, interval in order if pair % 2 else order[::-1]:
                directory = Path(name) / f"run-{pair}-{interval}"
                times.append(seconds(directory, corpus, args.updates, interval, args.overrides))
    row = {
        "updates": args.updates,
        "interval": args.interval,
        "overrides": args.overrides,
        "seconds_without": statistics.median(each.clock for each in without),
        "seconds_with": statistics.median(each.clock for each in having),
        "cost": statistics.median(b.clock / a.clock for a, b in zip(without, having, strict=True)) - 1,
        "processor_cost": statistics.median(b.processor / a.processor for a, b in zip(without, having)) - 1,
    }
    table = Figures(*(name.replace("_", " ") for name in row))
    table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    rich.print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    with OUTPUT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

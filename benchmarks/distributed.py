"""`python -m benchmarks.distributed`: what two processes on two cores are worth, against two runs of one core each.

Both train the base Transformer (`model=transformer`) on the embedded corpus with the same batches. Efficiency is the
speed of one run of two processes over the sum of the speeds of two runs that run at the same time, so that memory
bandwidth and clock rate are the same in both; rounds alternate, and medians are compared. It wants a quiet machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import rich

from app.data.demo_corpus import write_demo_corpus
from benchmarks.tables import Figures


def command(run_dir: Path, corpus: Path, *overrides: str) -> list[str]:
    given = [f"run_dir={run_dir}", f"task.data={corpus}", f"cache_dir={corpus.parent / 'cache'}", *overrides]
    still = ["trainer.validate_interval=0", "trainer.log_interval=1", "trainer.num_threads=1", "precision=fp32"]
    return [sys.executable, "-m", "app.train", *given, *still]


def speed(run_dir: Path) -> float:
    """Target tokens a second: the median over updates, the first two left out."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return statistics.median([line["wps"] for line in lines if line["kind"] == "train"][2:])


def measure(commands: list[list[str]], run_dirs: list[Path]) -> float:
    """The sum of the speeds of runs that are started at once."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) for words in commands]
    if any(process.wait() for process in running):
        raise SystemExit(f"a run failed, try it by hand: {' '.join(commands[0])}")
    return sum(map(speed, run_dirs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/distributed"))
    parser.add_argument("overrides", nargs="*", help="such as distributed.bucket_cap_mb=50 or model=transformer_big")
    args = parser.parse_args()
    corpus = args.output.resolve() / "corpus"
    if not corpus.is_dir():
        write_demo_corpus(corpus, 1)
    size = [f"trainer.max_update={args.updates}", f"batching.max_tokens={args.max_tokens}", *args.overrides]
    two = ["distributed=ddp", "distributed.nproc_per_node=2"]
    alone, together = [], []
    for number in range(args.rounds):
        here = args.output.resolve() / f"{os.getpid()}-{number}"
        singles = [here / "first", here / "second"]
        alone.append(measure([command(run_dir, corpus, *size) for run_dir in singles], singles))
        together.append(measure([command(here / "two", corpus, *size, *two)], [here / "two"]))
    title = f"base model, {args.max_tokens} tokens a batch, target tokens a second"
    table = Figures("two runs", "one run of two processes", "efficiency", title=title)
    sums = statistics.median(alone), statistics.median(together)
    table.add_row(f"{sums[0]:,.0f}", f"{sums[1]:,.0f}", f"{100 * sums[1] / sums[0]:.1f}%")
    rich.print(table)
    result = {"alone": alone, "together": together, "efficiency": sums[1] / sums[0], "settings": size}
    (args.output / "results.jsonl").open("a").write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

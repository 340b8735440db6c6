"""How long corpora of any size take to start training, and what memory: `python -m benchmarks.corpus --lines 1000000`.

A corpus is made up: a little text is prepared as usual, and then its stores in the cache are written anew with as many
rows as are asked for, of 7 ids on the average; `store` is what they take. `first start` is the start that counts what
there is in the corpus and keeps that in the cache; the one after it is measured: seconds from the command to the first
update, how many of them the processor worked, and the most memory at any time (anonymous memory is what the program has
for itself; resident memory counts what is mapped from files too, which the kernel takes back when it wants it).
`window` is the time to order a window and to cut it into batches. All of it is deleted in the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console

from app.compose import CONF
from app.config import BatchingConfig
from app.data.dataset import PairDataset
from app.data.iterator import EpochIterator
from app.data.large import LargeWeights
from app.data.pair_rows import EveryRow, PairRows
from app.data.store import Store, write_store
from app.data.windows import Span
from benchmarks.tables import Figures

TEXT = {"train": 500, "valid": 50}  # lines
CHUNK = 1_000_000  # rows that are written together
LONGEST = 12  # ids of a row, eos counted
MIB = 1 << 20
SETTINGS = ["model=transformer_tiny", "tokenizer=word", "trainer.decode_valid=false", "trainer.device=cpu"]
SETTINGS += [
    "batching.max_tokens=1024",
    "trainer.validate_interval=0",
    "trainer.log_interval=1",
    "task.source_lang=de",
    "task.target_lang=en",
]
LIMITS = BatchingConfig(**{**OmegaConf.load(CONF / "train.yaml").batching, "seed": 1})
MEMORY = {"anonymous": "RssAnon", "resident": "VmHWM"}  # what the kernel calls it
COLUMNS = {
    "lines": "{:,}",
    "store": "{:,.0f} MiB",
    "first start": "{:.1f} s",
    "start": "{:.1f} s",
    "processor": "{:.1f} s",
    "window": "{:.2f} s",
    "anonymous": "{:,.0f} MiB",
    "resident": "{:,.0f} MiB",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[1_000_000], help="pairs of each corpus")
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0], help="of the directories that share them")
    parser.add_argument("--updates", type=int, default=40, help="of the run that is measured")
    parser.add_argument("--directory", type=Path, default=Path("outputs/bench"), help="where corpora are made")
    parser.add_argument("overrides", nargs="*", help="more settings of app.train, behind --: -- batching.window=0")
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    table = Figures(*COLUMNS)
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        directory = Path(name)
        places = [write_text(directory, args.weights), f"run_dir={directory}/run", f"cache_dir={directory}/cache"]
        command = [sys.executable, "-m", "app.train", *places, *SETTINGS, *args.overrides]
        started(command, 1, directory / "run")
        for lines in args.lines:
            row = measured(lines, command, directory, args)
            table.add_row(*(form.format(row[name]) for name, form in COLUMNS.items()))
            with (args.directory / "corpus.jsonl").open("a") as file:
                file.write(f"{json.dumps({**row, 'weights': args.weights, 'more': args.overrides})}\n")
    Console().print(table)


def measured(lines: int, command: list[str], directory: Path, args: argparse.Namespace) -> dict[str, float]:
    """One row of the table."""
    stores = grown(directory / "cache", lines, len(args.weights))
    first, last = (started(command, updates, directory / "run") for updates in (1, args.updates))
    size = sum(store.path.stat().st_size for store in stores) / MIB
    return {"lines": lines, "store": size, "first start": first["start"], "window": window_seconds(stores), **last}


def write_text(directory: Path, weights: list[float]) -> str:
    """Directories of text, as `task.data` names them."""
    for number in range(len(weights)):
        data = directory / f"text-{number}"
        data.mkdir()
        for split, count in TEXT.items():
            lines = [" ".join(f"w{(line * 7 + place) % 200}" for place in range(1 + line % 9)) for line in range(count)]
            for lang in ("de", "en"):
                (data / f"{split}.{lang}").write_text("".join(f"{line}\n" for line in lines))
    time.sleep(2.5)  # or digests of files that are so new are not kept
    entries = (f"{{path: {directory}/text-{number}, weight: {weight}}}" for number, weight in enumerate(weights))
    return f"task.data=[{','.join(entries)}]"


def grown(cache: Path, lines: int, parts: int) -> list[Store]:
    """The stores of the training split, which now have `lines` rows, as many of each directory."""
    directory = max(cache.glob("rows-*"), key=lambda path: len(Store(path / "source.store")))
    draw = np.random.default_rng(0)
    for side in ("source", "target"):
        lengths = draw.integers(2, LONGEST + 1, CHUNK)
        ids = draw.integers(4, 200, lengths.sum())
        ids[lengths.cumsum() - 1] = 2
        with write_store(directory / f"{side}.store", 256) as add:
            for start in range(0, lines, CHUNK):
                count = min(CHUNK, lines - start)
                add(ids[: lengths[:count].sum()], lengths[:count])
    counts = {"rows": np.diff(np.linspace(0, lines, parts + 1).astype(int)).tolist(), "bad_lines": [0] * parts}
    (directory / "counts.json").write_text(json.dumps(counts))
    return [Store(directory / f"{side}.store").unmapped() for side in ("source", "target")]


def started(command: list[str], updates: int, run_dir: Path) -> dict[str, float]:
    """A new run until it has made so many updates: what it took to the first one, and the most memory that it had."""
    shutil.rmtree(run_dir, ignore_errors=True)
    seen, start, log, metrics = {}, time.perf_counter(), run_dir.parent / "log.txt", run_dir / "metrics.jsonl"
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as run:
        while run.poll() is None:
            time.sleep(0.02)
            now = {**usage(run.pid), "start": time.perf_counter() - start}
            done = metrics.read_text().count("\n") if metrics.is_file() else 0
            most = {name: max(seen.get(name, 0.0), now[name]) for name in ("anonymous", "resident")}
            seen = {**(now if done == 0 else seen), **most}
            if done >= updates:
                run.kill()
                return seen
    sys.exit(f"{' '.join(command)}: exit code {run.returncode}\n{log.read_text()}")


def usage(pid: int) -> dict[str, float]:
    """Processor seconds so far, and MiB in use, of a process that has not been waited for."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]  # in user and system mode
    memory = {name: fields.get(key, "0").split()[0] for name, key in MEMORY.items()}
    seconds = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    return {"processor": seconds, **{name: int(kib) / 1024 for name, kib in memory.items()}}


def window_seconds(stores: list[Store]) -> float:
    """Seconds to put a window of an epoch into batches."""
    pairs = PairRows(stores[0], stores[1], LONGEST, LONGEST)
    rows = EveryRow(pairs.tally())
    weights = LargeWeights((Span(0, len(stores[0]), 1.0),), pairs.used)
    iterator = EpochIterator(PairDataset(stores[0], stores[1], rows, weights, {}), LIMITS, 1)
    start = time.perf_counter()
    iterator.is_done()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

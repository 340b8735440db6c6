"""`python -m benchmarks.speed`: how fast this machine trains and translates, beside how fast it could be.

Model A is a Transformer of 3+3 layers of width 256 (ffn 1024, 4 heads), B is `transformer_wmt_en_de`; with a GPU there
is `transformer_big` too. All have 8,000 joint pieces and shared embeddings. The data are pairs of random pieces with
lengths like those of Multi30k. Rows:

* `plain`: a step as fairseq writes it (benchmarks/reference.py), with fairseq's batches and malloc's own settings
* `fp32`, `bf16`: what `app.train` does; `bf16, torch's dropout` and so on: with one lever taken out
* `start`: seconds from the command to the end of the first update of model A, with cached data
* `two processes`: model A in fp32 on the embedded corpus with distributed=ddp
* `decode`: translation with outputs of exactly 15 pieces

Each training row lives in a process of its own, and they take turns, so that other load on the machine hits all alike.
Each round all rows have batches of like lengths. Figures are medians over rounds. `mfu` is 6 times the products'
parameters times tokens, a second, over the rate of a large product of the same dtype in the same run. Memory is the
process's peak. One JSON line a row goes to outputs/bench/speed.jsonl. `--only A` runs the rows whose names have an A.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rich
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from app.cli import store_schema
from app.compose import CONF
from app.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropy, LabelSmoothedCrossEntropyConfig
from app.data.batch import Batch
from app.data.batching import Indices, make_batches, padding_share
from app.data.demo_corpus import write_demo_corpus
from app.data.fairseq_order import batch_by_size, ordered_indices
from app.data.vocabulary import Vocabulary
from app.interfaces import Loss, Model
from app.optimizers.adam import Adam, AdamConfig
from app.plugins import configure
from app.runtime.memory import keep_buffers
from app.runtime.precision import PreciseOptimizer, Precision, PrecisionConfig
from app.utilization import measured_peak, timed
from benchmarks.distributed import measure
from benchmarks.reference import PATCHES, plain_adam, without
from benchmarks.tables import Figures

WORDS = 8000
SMALL = {"layers": 3, "embed_dim": 256, "ffn_embed_dim": 1024, "attention_heads": 4}
MODEL_A = [f"model.{side}_{name}={value}" for side in ("encoder", "decoder") for name, value in SMALL.items()]
MODELS = {"A": ["model=transformer", *MODEL_A], "B": ["model=transformer_wmt_en_de"], "big": ["model=transformer_big"]}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PARTS = ("forward", "backward", "optimizer")
WARM_UP = 1  # rounds


@dataclass(frozen=True)
class Row:
    """A way to train a model."""

    model: str  # a key of MODELS
    name: str
    precision: str
    lacks: frozenset[str] = frozenset()  # keys of benchmarks.reference.PATCHES
    plain: bool = False  # also fairseq's batches, optimizer and memory

    @property
    def title(self) -> str:
        return f"{self.model} {self.name}"


def training_rows() -> Iterator[Row]:
    for model in ("A", "B", *(["big"] if DEVICE.type == "cuda" else [])):
        yield Row(model, "plain", "fp32", frozenset(PATCHES), plain=True)
        yield Row(model, "fp32", "fp32")
        yield Row(model, "bf16", "bf16")
        for lever in PATCHES if model == "A" else ():
            yield Row(model, f"bf16, {lever} as fairseq's", "bf16", frozenset([lever]))


def model_values(overrides: list[str]) -> dict[str, Any]:
    """The group `model` of the configuration, with 8,000 shared embeddings."""
    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose("train", [*overrides, "model.share_all_embeddings=true", "model.dropout=0.1"])
    values: Any = OmegaConf.to_container(node.model, resolve=True)
    return dict(values)


def made_up_lengths(count: int = 29_000) -> tuple[Indices, Indices]:
    """Source and target lengths like Multi30k's in pieces: 16 on average, the two sides alike."""
    draw = np.random.default_rng(0)
    source = np.clip(draw.gamma(7, 2.2, count), 4, 60)
    target = np.clip(source + draw.normal(0, 2.5, count), 3, 60)
    return np.rint(source).astype(np.int64), np.rint(target).astype(np.int64)


class Training:
    """A row's model, optimizer and batches."""

    def __init__(self, row: Row, tokens: int, rounds: int):
        if not row.plain:
            keep_buffers()
        torch.manual_seed(1)
        words = Vocabulary([f"w{i}" for i in range(WORDS - 4)], [1] * (WORDS - 4))
        task: Any = SimpleNamespace(source_vocabulary=words, target_vocabulary=words)
        self.row = row
        self.model: Model = configure(model_values(MODELS[row.model]), "app.interfaces.Model")(task).to(DEVICE).train()
        self.criterion = LabelSmoothedCrossEntropy(LabelSmoothedCrossEntropyConfig(0.1, 0, False, False, 0.0), task)
        inner = (
            plain_adam(self.model.parameters(), 1e-4, (0.9, 0.98), 1e-8)
            if row.plain
            else Adam(AdamConfig(1e-4, [0.9, 0.98], 1e-8, 0.0), self.model.parameters())
        )
        self.optimizer = PreciseOptimizer(inner, Precision(PrecisionConfig(row.precision, 1.0, 1), DEVICE))
        self.lengths = made_up_lengths()
        self.batches = self._batches(tokens)
        self.chosen = np.linspace(0, len(self.batches) - 1, rounds + 2).astype(int)[1:-1]  # of all lengths
        self.chosen = np.random.default_rng(1).permutation(self.chosen)

    def _batches(self, tokens: int) -> list[Indices]:
        """From short sentences to long ones."""
        if self.row.plain:
            order = ordered_indices(*self.lengths, 1)
            return batch_by_size(order, np.maximum(*self.lengths)[order], tokens)
        batches = make_batches(*self.lengths, tokens, rng=np.random.default_rng(1))
        return sorted(batches, key=lambda rows: float(self.lengths[0][rows].mean()))

    def batch(self, number: int) -> Batch:
        """Random pieces of the chosen lengths, padding behind them."""
        rows = self.batches[self.chosen[number % len(self.chosen)]]
        generator, sides = torch.Generator().manual_seed(number), []
        for lengths in (torch.from_numpy(side[rows]) for side in self.lengths):
            pieces = torch.randint(4, WORDS, (len(rows), int(lengths.max())), generator=generator)
            pieces[torch.arange(pieces.size(1)) >= lengths[:, None]] = Vocabulary.pad
            sides.append(pieces)
        source, target = sides
        previous, count = target.roll(1, 1), int(self.lengths[1][rows].sum())
        previous[:, 0] = Vocabulary.eos
        lengths = torch.from_numpy(self.lengths[0][rows])
        return Batch(torch.from_numpy(rows), source, lengths, previous, target, count).to(DEVICE)

    def step(self, number: int) -> dict[str, float]:
        """Tokens of both sides, and seconds of each part of an update."""
        batch, losses, seconds = self.batch(number), list[Loss](), {}
        with without(self.row.lacks):
            for name, part in zip(PARTS, (self._forward, self._backward, self._update), strict=True):
                seconds[name] = timed(partial(part, batch, losses), DEVICE)
        return {"source": float(batch.src_lengths.sum()), "target": float(batch.num_tokens), **seconds}

    def _forward(self, batch: Batch, losses: list[Loss]) -> None:
        with self.optimizer.autocast():
            losses.append(self.criterion(self.model, batch))

    def _backward(self, batch: Batch, losses: list[Loss]) -> None:
        self.optimizer.backward(losses[0].value)

    def _update(self, batch: Batch, losses: list[Loss]) -> None:
        self.optimizer.average_and_clip(1 / losses[0].sample_size, 1.0)
        self.optimizer.step()

    def facts(self) -> dict[str, float]:
        """What is known when all is done."""
        model, peak = self.model, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if DEVICE.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**20
        encoder, decoder = (
            sum(m.weight.numel() for m in getattr(model, side).modules() if isinstance(m, torch.nn.Linear))
            for side in ("encoder", "decoder")
        )
        decoder += 0 if has_output_layer(model) else WORDS * model_width(model)
        return {
            "padding": padding_share(self.batches, *self.lengths),
            "peak": peak,
            "encoder": encoder,
            "decoder": decoder,
        }


def has_output_layer(model: Model) -> bool:
    """Whether the decoder holds the output projection as a layer, rather than sharing the embeddings."""
    output = model.output_projection
    return any(module is output for module in model.modules())


def model_width(model: Model) -> int:
    """What the output projection takes."""
    assert model.output_projection is not None
    return model.output_projection.in_features


def work(row: Row, tokens: int, rounds: int, pipe: Connection) -> None:
    """A row's process: an update whenever a number comes; at the end, marked by None, its facts."""
    training = Training(row, tokens, rounds)
    pipe.send(None)
    with suppress(EOFError):
        while (number := pipe.recv()) is not None:
            pipe.send(training.step(number))
        pipe.send(training.facts())


def train_rows(rows: list[Row], rounds: int, tokens: int) -> Iterator[dict[str, Any]]:
    """The rows of one model, in turn."""
    context, pipes = multiprocessing.get_context("spawn"), []
    for row in rows:
        ours, theirs = context.Pipe()
        context.Process(target=work, args=(row, tokens, rounds, theirs), daemon=True).start()
        ours.recv()  # it is ready; the next one may start
        pipes.append(ours)
    steps: list[list[dict[str, float]]] = [[] for _ in rows]
    peaks = {name: measured_peak(DEVICE, dtype) for name, dtype in DTYPES.items()}
    for number in range(-WARM_UP, rounds):
        for taken, pipe in zip(steps, pipes, strict=True):
            pipe.send(number % rounds)
            taken.append(pipe.recv())
    peaks = {name: max(peak, measured_peak(DEVICE, DTYPES[name])) for name, peak in peaks.items()}
    found = []
    for row, taken, pipe in zip(rows, steps, pipes, strict=True):
        pipe.send(None)
        found.append(summed_up(row, taken[WARM_UP:], pipe.recv(), peaks[row.precision]))
    for result in found:
        ratio = (
            {"times plain": round(result["target tokens/s"] / found[0]["target tokens/s"], 2)} if rows[0].plain else {}
        )
        yield {**result, **ratio}


def summed_up(row: Row, steps: list[dict[str, float]], facts: dict[str, float], peak: float) -> dict[str, Any]:
    """A row's line."""
    seconds = [sum(step[part] for part in PARTS) for step in steps]
    rates = [step["target"] / s for step, s in zip(steps, seconds, strict=True)]
    sources = [step["source"] / s for step, s in zip(steps, seconds, strict=True)]
    operations = [
        6 * (facts["encoder"] * step["source"] + facts["decoder"] * step["target"]) / s
        for step, s in zip(steps, seconds, strict=True)
    ]
    rate, source = statistics.median(rates), statistics.median(sources)
    parts = {part: sum(step[part] for step in steps) / sum(seconds) for part in PARTS}
    return {
        "row": row.title,
        "target tokens/s": round(rate),
        "spread": [round(min(rates)), round(max(rates))],
        "source tokens/s": round(source),
        "total tokens/s": round(rate + source),
        "mfu": round(statistics.median(operations) / peak, 3),
        "peak GFLOP/s": round(peak / 1e9),
        "padding": round(facts["padding"], 4),
        "peak MiB": round(facts["peak"]),
        "time": {part: round(share, 3) for part, share in parts.items()},
        "threads": torch.get_num_threads(),
        "device": DEVICE.type,
    }


def command(run_dir: Path, corpus: Path, *overrides: str) -> list[str]:
    """`app.train` of model A on the embedded corpus."""
    given = [f"run_dir={run_dir}", f"task.data={corpus}", f"cache_dir={corpus.parent / 'cache'}"]
    still = ["trainer.validate_interval=0", "trainer.log_interval=1", "checkpoint.save_interval_minutes=0"]
    return [sys.executable, "-m", "app.train", *MODELS["A"], *given, *still, *overrides]


def start_row(directory: Path, rounds: int) -> dict[str, Any]:
    """Seconds from the command to the end of the first update; the first run, which prepares the data, is left out."""
    seconds = []
    for number in range(rounds + 1):
        run_dir = directory / f"start-{os.getpid()}-{number}"
        began = time.time()
        words = command(run_dir, directory / "corpus", "trainer.max_update=1")
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
        seconds.append(json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])["time"] - began)
    spread = [round(min(seconds[1:]), 2), round(max(seconds[1:]), 2)]
    return {"row": "start", "seconds to first update": round(statistics.median(seconds[1:]), 2), "spread": spread}


def two_processes_row(directory: Path, rounds: int) -> dict[str, Any]:
    """A run of two processes with one thread each, beside the same run as one process with two threads."""
    size = ["trainer.max_update=8", "batching.max_tokens=2048", "precision=fp32"]
    two = ["distributed=ddp", "distributed.nproc_per_node=2", "trainer.num_threads=1"]
    rates: dict[str, list[float]] = {"one": [], "two": []}
    for number in range(rounds):
        for name, more in (("one", ["trainer.update_freq=2", "trainer.num_threads=2"]), ("two", two)):
            run_dir = directory / f"{name}-{os.getpid()}-{number}"
            rates[name].append(measure([command(run_dir, directory / "corpus", *size, *more)], [run_dir]))
    one, both = (statistics.median(rates[name]) for name in ("one", "two"))
    spread = [round(min(rates["two"])), round(max(rates["two"]))]
    row = {"row": "two processes", "target tokens/s": round(both), "spread": spread}
    return {**row, "times one process of two threads": round(both / one, 2)}


def decoding_rows(rounds: int) -> Iterator[dict[str, Any]]:
    training = Training(Row("A", "fp32", "fp32"), 64 * 15, 1)
    model, words = training.model.eval(), Vocabulary([f"w{i}" for i in range(WORDS - 4)], [1] * (WORDS - 4))
    batch = training.batch(0)
    for name, beam in (("greedy", 1), ("beam 5", 5)):
        search = configure({**search_config(), "beam": beam}, "app.search.Search")(words)
        translate = partial(search.generate, [model], batch.src_tokens, batch.src_lengths)
        seconds = [timed(translate, DEVICE) for _ in range(rounds)]
        rates = [len(batch) / s for s in seconds[1:]]
        spread = [round(min(rates)), round(max(rates))]
        yield {"row": f"decode {name}", "sentences/s": round(statistics.median(rates)), "spread": spread}


def search_config() -> dict[str, Any]:
    """`conf/search/beam.yaml` with the length fixed."""
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / "search" / "beam.yaml"))
    return {**values, "max_len_a": 0.0, "max_len_b": 14, "min_len": 14}


def all_rows(wanted: Callable[[str], bool], rounds: int, tokens: int, directory: Path) -> Iterator[dict[str, Any]]:
    for model, group in groupby(filter(lambda row: wanted(row.title), training_rows()), lambda row: row.model):
        yield from train_rows(list(group), rounds if model == "A" else max(2, rounds // 3), tokens)
    directory.mkdir(parents=True, exist_ok=True)
    if (wanted("start") or wanted("two processes")) and not (directory / "corpus").is_dir():
        write_demo_corpus(directory / "corpus", 1)
    if wanted("start"):
        yield start_row(directory, max(1, rounds // 3))
    if wanted("two processes") and DEVICE.type == "cpu":
        yield two_processes_row(directory, max(1, rounds // 3))
    if wanted("decode"):
        yield from decoding_rows(max(3, rounds // 2))


def cells(row: dict[str, Any]) -> list[str]:
    """What the table shows of a row."""
    unit = next(each for each in ("target tokens/s", "sentences/s", "seconds to first update") if each in row)
    low, high = row["spread"]
    some = [f"{row.get(name, '')}" for name in ("times plain", "mfu", "padding", "peak MiB")]
    time_of = " / ".join(f"{100 * share:.0f}" for share in row.get("time", {}).values())
    return [f"{row[unit]:,} {unit}", f"{low:,}-{high:,}", *some, time_of]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=9, help="timed updates of each row of model A; a third for larger"
    )
    parser.add_argument("--tokens", type=int, default=4096, help="most tokens of a batch on either side")
    parser.add_argument(
        "--only", nargs="*", default=[""], help="rows whose names contain one of these: A, 'B bf16', ..."
    )
    args = parser.parse_args()
    path = Path("outputs/bench/speed.jsonl").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ("rate", "spread", "times plain", "mfu", "padding", "peak MiB", " / ".join(PARTS))
    table = Figures("row", *columns, title=f"{torch.get_num_threads()} threads, {DEVICE.type}")
    rows = all_rows(
        lambda name: any(part in name for part in args.only), args.rounds, args.tokens, path.parent / "speed"
    )
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            file.flush()
            table.add_row(row["row"], *cells(row))
    rich.print(table)
    rich.print(f"written to {path}")


if __name__ == "__main__":
    main()

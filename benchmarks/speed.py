"""`python -m benchmarks.speed`: how fast this machine trains and translates, beside how fast it could be.

The model is a Transformer of 3+3 layers of width 256 with 8,000 joint pieces; sentences have the lengths of image
captions (about 16 pieces). Rows are medians over interleaved rounds, so that other load on the machine hits all alike:

* `plain`: torch's dropout, and all scores of the vocabulary held at once, as fairseq does it
* `cheap dropout`, `fused loss`: with one of the two that `app.train` has instead
* `fp32`, `bf16`: what `app.train` does
* `greedy`, `beam 5`: translation with outputs of exactly 15 pieces

`share of peak` is 6 (training) times the products' parameters times tokens, a second, over the rate of a large product
in the same format in the same run. One JSON line a row goes to outputs/bench/speed.jsonl.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import rich
import torch
from rich.table import Table
from torch.nn import functional as F

from app.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropy, LabelSmoothedCrossEntropyConfig
from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.interfaces import Task
from app.models.transformer import Transformer, TransformerConfig
from app.modules.dropout import Dropout
from app.optimizers.adam import Adam, AdamConfig
from app.plugins import configure
from app.runtime.memory import keep_buffers
from app.runtime.precision import PreciseOptimizer, Precision, PrecisionConfig

WORDS, DIM, FFN, LAYERS, HEADS = 8000, 256, 1024, 3, 4
CPU = torch.device("cpu")


def model_config() -> TransformerConfig:
    side = {"layers": LAYERS, "embed_dim": DIM, "ffn_embed_dim": FFN, "attention_heads": HEADS}
    side |= {"layerdrop": 0.0, "layers_to_keep": None}
    both = {f"{name}_{key}": value for name in ("encoder", "decoder") for key, value in side.items()}
    flags = {field.name: False for field in fields(TransformerConfig) if field.type is bool}
    rates: dict[str, Any] = {"dropout": 0.1, "attention_dropout": 0.0, "activation_dropout": 0.0}
    rest = {"adaptive_softmax_cutoff": None, "adaptive_softmax_dropout": 0.0, "adaptive_softmax_factor": 4.0}
    plain = {"activation_fn": "relu", "norm_fn": "layer", "encoder_kv_heads": None, "decoder_kv_heads": None}
    sizes = {"decoder_output_dim": DIM, "max_source_positions": 256, "max_target_positions": 256}
    return TransformerConfig(**{**both, **flags, **rates, **rest, **sizes, **plain, "share_all_embeddings": True})


def batch_of(tokens: int, generator: torch.Generator) -> Batch:
    """A batch of pairs of nearly one length, `tokens` target tokens in all."""
    length = int(torch.randint(10, 24, (), generator=generator))
    rows = tokens // length
    source, target = (torch.randint(4, WORDS, (rows, length), generator=generator) for _ in range(2))
    for side in (source, target):
        side[:, -1] = Vocabulary.eos
    previous = target.roll(1, 1)
    return Batch(torch.arange(rows), source, torch.full((rows,), length), previous, target, rows * length)


def flops_per_token() -> float:
    """Multiplications and additions of one forward pass for a source and a target token, in the products."""
    encoder = LAYERS * (4 * DIM * DIM + 2 * DIM * FFN)
    decoder = LAYERS * (8 * DIM * DIM + 2 * DIM * FFN) + DIM * WORDS
    return 2.0 * (encoder + decoder)


@contextmanager
def without(cheap_dropout: bool, fused_loss: bool) -> Iterator[None]:
    """Take out what `app.train` has in place of torch's dropout and of a loss of all scores at once."""
    with ExitStack() as stack:
        if cheap_dropout:
            stack.enter_context(patch.object(Dropout, "forward", lambda self, x: F.dropout(x, self.p, self.training)))
        if fused_loss:
            stack.enter_context(patch.object(Transformer, "output_projection", None))
        yield


class Training:
    """A model, its optimizer and a step."""

    def __init__(self, precision: str, cheap_dropout: bool = True, fused_loss: bool = True):
        words = Vocabulary([f"w{i}" for i in range(WORDS - 4)], [1] * (WORDS - 4))
        task: Any = SimpleNamespace(source_vocabulary=words, target_vocabulary=words)
        torch.manual_seed(1)
        self.model, self.precision = Transformer(model_config(), task), precision
        self.without = {"cheap_dropout": not cheap_dropout, "fused_loss": not fused_loss}
        self.criterion = LabelSmoothedCrossEntropy(LabelSmoothedCrossEntropyConfig(0.1, 0, False, False, 0.0), task)
        inner = Adam(AdamConfig(1e-4, [0.9, 0.98], 1e-8, 0.0), self.model.parameters())
        self.optimizer = PreciseOptimizer(inner, Precision(PrecisionConfig(precision, 1.0, 1), CPU))

    def step(self, batch: Batch) -> None:
        with without(**self.without):
            loss = Task.train_step(None, batch, self.model, self.criterion, self.optimizer)  # type: ignore[arg-type]
        self.optimizer.average_and_clip(1 / loss.sample_size, 1.0)
        self.optimizer.step()


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak(dtype: torch.dtype) -> float:
    """Operations a second of a large product."""
    a, b, out = (torch.randn(2048, 2048).to(dtype) for _ in range(3))
    return 2 * 2048**3 / min(timed(lambda: torch.mm(a, b.t(), out=out)) for _ in range(20))


def training_rows(rounds: int, tokens: int) -> Iterator[dict[str, Any]]:
    rows = {
        "plain": Training("fp32", cheap_dropout=False, fused_loss=False),
        "fp32, cheap dropout": Training("fp32", fused_loss=False),
        "fp32, fused loss": Training("fp32", cheap_dropout=False),
        "fp32": Training("fp32"),
        "bf16, plain": Training("bf16", cheap_dropout=False, fused_loss=False),
        "bf16": Training("bf16"),
    }
    rates: dict[str, list[float]] = {name: [] for name in rows}
    peaks = {"fp32": peak(torch.float32), "bf16": peak(torch.bfloat16)}
    generator = torch.Generator().manual_seed(1)
    for number in range(rounds + 2):
        batch = batch_of(tokens, generator)
        for name, training in rows.items():
            seconds = timed(partial(training.step, batch))
            if number >= 2:  # the first rounds warm up
                rates[name].append(batch.num_tokens / seconds)
    reference = statistics.median(rates["plain"])
    for name, values in rates.items():
        rate = statistics.median(values)
        yield {
            "row": f"train {name}",
            "target tokens/s": round(rate),
            "spread": [round(min(values)), round(max(values))],
            "times plain": round(rate / reference, 2),
            "share of peak": round(3 * flops_per_token() * rate / peaks[rows[name].precision], 3),
        }


def decoding_rows(rounds: int) -> Iterator[dict[str, Any]]:
    model = Training("fp32").model.eval()
    words = Vocabulary([f"w{i}" for i in range(WORDS - 4)], [1] * (WORDS - 4))
    batch = batch_of(64 * 15, torch.Generator().manual_seed(2))
    for name, beam in (("greedy", 1), ("beam 5", 5)):
        search = configure({**search_config(), "beam": beam}, "app.search.Search")(words)
        translate = partial(search.generate, [model], batch.src_tokens, batch.src_lengths)
        seconds = [timed(translate) for _ in range(rounds)]
        rates = [len(batch) / s for s in seconds[1:]]
        spread = [round(min(rates)), round(max(rates))]
        yield {"row": f"decode {name}", "sentences/s": round(statistics.median(rates)), "spread": spread}


def search_config() -> dict[str, Any]:
    """`conf/search/beam.yaml` with the length fixed."""
    from omegaconf import OmegaConf

    from app.compose import CONF

    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / "search" / "beam.yaml"))
    return {**values, "max_len_a": 0.0, "max_len_b": 14, "min_len": 14}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed updates of each row")
    parser.add_argument("--tokens", type=int, default=4096, help="target tokens of a batch")
    args = parser.parse_args()
    keep_buffers()
    path = Path("outputs/bench/speed.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = Table("row", "rate", "spread", "times plain", "share of peak", title=f"{torch.get_num_threads()} threads")
    with path.open("w", encoding="utf-8") as file:
        for row in (*training_rows(args.rounds, args.tokens), *decoding_rows(max(3, args.rounds // 3))):
            file.write(json.dumps(row) + "\n")
            unit = "target tokens/s" if "target tokens/s" in row else "sentences/s"
            low, high = row["spread"]
            numbers = (f"{row.get(key, '')}" for key in ("times plain", "share of peak"))
            table.add_row(row["row"], f"{row[unit]:,} {unit}", f"{low:,}-{high:,}", *numbers)
    rich.print(table)
    rich.print(f"written to {path}")


if __name__ == "__main__":
    main()

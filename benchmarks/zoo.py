"""`python -m benchmarks.zoo DATA`: every model family learns something from real text, shown by one table.

DATA holds `train.en`, `train.de`, `valid.en`, `valid.de` (or the same with `.gz`), such as Multi30k. Each row trains a
small model in a process of its own for a fixed number of updates, and says its metric on the validation split before
the first update and after the last one, beside a baseline that knows no model:

* `copy`: the source in place of the translation (BLEU)
* `unigram`: every target token by its frequency in the training split (perplexity of the same tokens)
* `majority`: the label that the training split has most often, for every sample (accuracy)

Translations are greedy unless the row says otherwise. The exit code is 1 where a row fails, or is not better than its
baseline. One JSON line a row goes to outputs/zoo/zoo.jsonl. Words after DATA are overrides for all rows.
"""

import argparse
import json
import math
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from app.callbacks import Callback
from app.cli import configure_node, store_schema
from app.compose import CONF
from app.train import run
from benchmarks.labelled import languages, word_order
from benchmarks.tables import Figures

TRANSLATION = [
    "task.source_lang=en",
    "task.target_lang=de",
    "search=greedy",
    "search.max_len_a=1.2",
    "search.max_len_b=10",
    "scorer=bleu",
]
LANGUAGE_MODELING = [
    "task.lang=de",
    "task.sample_break_mode=eos",
    "task.tokens_per_sample=128",
    "criterion=cross_entropy",
]
REFINEMENT = [
    *TRANSLATION[:2],
    "criterion=nat_loss",
    "search=iterative_refinement",
    "search.iter_decode_max_iter=4",
    "scorer=bleu",
]
DENOISING = ["task.lang=de", "task.sample_break_mode=eos", "task.tokens_per_sample=128", "criterion=cross_entropy"]
BOTH_WAYS = ["task.lang_pairs=[en-de,de-en]", *TRANSLATION[2:]]
MASKED = ["task.lang=de", "task.sample_break_mode=eos", "task.tokens_per_sample=128", "criterion=masked_lm"]
COMMON = {  # task -> what all its rows have
    "masked_lm": MASKED,
    "sentence_prediction": ["criterion=sentence_prediction", "task.shorten_method=truncate"],
    "sentence_ranking": ["criterion=sentence_ranking", "task.shorten_method=truncate"],
    "denoising": DENOISING,
    "multilingual_translation": BOTH_WAYS,
    "translation": TRANSLATION,
    "translation_lev": REFINEMENT,
    "language_modeling": LANGUAGE_MODELING,
}
MADE = {"sentence_prediction": languages, "sentence_ranking": word_order}  # tasks whose text is made from DATA's
ALWAYS = [  # of every row
    "tokenizer.vocab_size=4000",
    "model.dropout=0.1",
    "optimizer.lr=2e-3",
    "lr_scheduler=polynomial_decay",
    "batching.max_tokens=2048",
    "trainer.clip_norm=1.0",
    "trainer.validate_interval=1000000",  # at the end alone
]
ENCODER_DECODER = [
    "model.encoder_embed_dim=256",
    "model.encoder_ffn_embed_dim=512",
    "model.encoder_attention_heads=4",
    "model.encoder_layers=2",
    "model.decoder_layers=2",
    "model.encoder_normalize_before=true",
    "model.share_all_embeddings=true",
]
DECODER = [
    "model.decoder_embed_dim=256",
    "model.decoder_ffn_embed_dim=512",
    "model.decoder_attention_heads=4",
    "model.decoder_layers=3",
    "model.share_decoder_input_output_embed=true",
]
ENCODER = [
    "model=roberta_prenorm",
    *ENCODER_DECODER[:4],
    "model.attention_dropout=0",
]
LSTM = ["model.encoder_embed_dim=256", "model.decoder_embed_dim=256", "model.decoder_out_embed_dim=256"]
LSTM_LM = ["model.decoder_embed_dim=256", "model.decoder_out_embed_dim=256"]
NARROW = ["model.encoder_kernel_size_list=[3,7]", "model.decoder_kernel_size_list=[3,7]"]
GATED = "[[256,3],[256,3],[256,3]]"
SELF_ATTENTION = ["model=fconv_self_att", "model.encoder_embed_dim=256", f"model.encoder_layers={GATED}"]
SELF_ATTENTION += [
    f"model.decoder_layers={GATED}",
    "model.self_attention=[true,true,true]",
    "model.gated_attention=true",
]
ADAPTIVE = ["criterion=adaptive_loss", "model.adaptive_softmax_cutoff=[500,2000]"]
ALIGNED = ["model.alignment_layer=1", "criterion=label_smoothed_cross_entropy_with_alignment"]
DRAFTS = [*ENCODER_DECODER, "model.decoder_attention_heads=4", "model.decoder_normalize_before=true"]
DRAFTS += ["batching.max_tokens=1024"]
LONGER = "search.iter_decode_eos_penalty=2"  # models that insert are shy at first


@dataclass(frozen=True)
class Row:
    """A model and what becomes of it."""

    name: str
    task: str  # an option of the config group, and a key of COMMON
    overrides: list[str]
    updates: int
    metric: str = "bleu"  # of the validation split
    mode: str = "max"  # min or max: which direction of the metric is better
    baseline: str = "copy"  # a key of BASELINES


def lm(name: str, overrides: list[str], updates: int) -> Row:
    """A language model of the German side."""
    return Row(name, "language_modeling", overrides, updates, "ppl", "min", "unigram")


def refining(model: str, noise: str, updates: int, *more: str) -> Row:
    """A model that refines drafts. Without distilled data it stays far behind those that go token by token."""
    return Row(model, "translation_lev", [f"model={model}", f"task.noise={noise}", *DRAFTS, *more], updates)


def sentences(name: str, task: str, updates: int) -> Row:
    """A model that says something of sentences, half of whose answers would be right by chance."""
    return Row(name, task, ENCODER, updates, "accuracy", "max", "majority")


ROWS = [
    Row("transformer", "translation", ["model=transformer", *ENCODER_DECODER], 350),
    Row("transformer_modern", "translation", ["model=transformer_modern", *ENCODER_DECODER], 350),
    Row("lstm", "translation", ["model=lstm", *LSTM, "model.encoder_bidirectional=true"], 350),
    Row("fconv", "translation", ["model=fconv", "model.encoder_embed_dim=256", f"model.encoder_layers={GATED}"], 350),
    Row("fconv_self_att", "translation", SELF_ATTENTION, 350),
    Row(
        "lightconv",
        "translation",
        ["model=lightconv", *ENCODER_DECODER, *NARROW, "model.encoder_conv_type=lightweight"],
        350,
    ),
    Row("dynamicconv", "translation", ["model=lightconv", *ENCODER_DECODER, *NARROW], 350),
    Row("transformer_align", "translation", ["model=transformer_align", *ENCODER_DECODER, *ALIGNED], 350),
    Row("language_tokens", "multilingual_translation", [*ENCODER_DECODER, "task.encoder_langtok=tgt"], 500),
    Row(
        "multilingual_transformer",
        "multilingual_translation",
        ["model=multilingual_transformer", *ENCODER_DECODER, "model.share_encoders=true"],
        500,
    ),
    Row("bart", "denoising", ["model=bart", *ENCODER_DECODER], 350, "ppl", "min", "unigram"),
    refining("nonautoregressive_transformer", "full_mask", 500),
    refining("cmlm_transformer", "random_mask", 500),
    refining("iterative_nonautoregressive_transformer", "full_mask", 350, "model.train_step=2"),
    refining("levenshtein_transformer", "random_delete", 400, LONGER),
    refining("insertion_transformer", "random_delete", 400, LONGER),
    lm("transformer_lm", ["model=transformer_lm", *DECODER], 400),
    lm("llama_small", ["model=llama_small", *DECODER, "model.decoder_kv_heads=2"], 400),
    lm("transformer_lm_adaptive", ["model=transformer_lm", *DECODER[:-1], *ADAPTIVE], 400),
    lm("lstm_lm", ["model=lstm_lm", *LSTM_LM], 400),
    lm("fconv_lm", ["model=fconv_lm", "model.decoder_embed_dim=256", f"model.decoder_layers={GATED}"], 400),
    lm("lightconv_lm", ["model=lightconv_lm", *DECODER, "model.decoder_kernel_size_list=[3,7,15]"], 400),
    Row("roberta", "masked_lm", ENCODER, 400, "ppl", "min", "unigram"),
    sentences("roberta_languages", "sentence_prediction", 100),
    sentences("roberta_word_order", "sentence_ranking", 100),
]


def majority(task: Any, plugins: dict[str, Any]) -> float:
    """Accuracy, in percent, of always answering what is most often right in training."""
    train, valid = (task.dataset(split) for split in ("train", "valid"))
    answer = np.bincount(train.labels[train.rows]).argmax()
    return float(100 * (valid.labels[valid.rows] == answer).mean())


def copied(task: Any, plugins: dict[str, Any]) -> float:
    """BLEU of the source lines themselves; of several pairs of languages the mean."""
    parts = [task.of_pair(pair) for pair in task.lang_pairs] or [task]
    scores = [plugins["scorer"]["bleu"]().score(*part.references("valid")).value for part in parts]
    return float(sum(scores) / len(scores))


def unigram(task: Any, plugins: dict[str, Any]) -> float:
    """Perplexity of the targets under their frequencies in training, to each of which 1 is added."""

    def counts(split: str) -> torch.Tensor:
        vocabulary, found = task.target_vocabulary, torch.zeros(len(task.target_vocabulary), dtype=torch.float64)
        for batch in task.get_batch_iterator(task.dataset(split)):
            real = batch.target[batch.target.ne(vocabulary.pad)]
            found += torch.bincount(real, minlength=len(vocabulary))
        return found

    seen, wanted = counts("train") + 1, counts("valid")
    return math.exp(-float((wanted * (seen / seen.sum()).log()).sum() / wanted.sum()))


BASELINES: dict[str, Callable[[Any, dict[str, Any]], float]] = {
    "copy": copied,
    "unigram": unigram,
    "majority": majority,
}


def measure(row: Row, data: str, updates: int, directory: Path, overrides: list[str]) -> dict[str, Any]:
    """Train one row in this process, in a directory that is emptied first."""
    run_dir = directory / "runs" / row.name
    shutil.rmtree(run_dir, ignore_errors=True)
    cfg, plugins = configured([*overrides_of(row, data, updates, directory), *overrides])
    before = BeforeTraining(row, plugins)
    plugins["callbacks"] = {**plugins["callbacks"], "zoo": lambda: before}
    started = time.perf_counter()
    run(cfg, plugins)
    seconds = time.perf_counter() - started - before.seconds
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    after = [line[row.metric] for line in lines if line["kind"] == "valid"][-1]
    better = after > before.baseline if row.mode == "max" else after < before.baseline
    said = {"row": row.name, "task": row.task, "data": data, "updates": updates, "seconds": round(seconds, 1)}
    judged_by = {"metric": row.metric, "mode": row.mode, "before": round(before.metric, 2)}
    return {**said, **judged_by, row.baseline: round(before.baseline, 2), "after": round(after, 2), "better": better}


class BeforeTraining(Callback):
    """Takes the row's metric before the first update, and its baseline."""

    def __init__(self, row: Row, plugins: dict[str, Any]):
        self.row, self.plugins = row, plugins

    def on_start(self, trainer: Any) -> None:
        started = time.perf_counter()
        trainer.valid_set = trainer.task.dataset("valid")
        self.metric = trainer.validate()[self.row.metric]
        self.baseline = BASELINES[self.row.baseline](trainer.task, self.plugins)
        self.seconds = time.perf_counter() - started  # not counted as training


def overrides_of(row: Row, data: str, updates: int, directory: Path) -> list[str]:
    """The row as the command line of `app.train`."""
    length = [f"trainer.max_update={updates}", f"lr_scheduler.warmup_updates={updates // 5}"]
    judged = [f"checkpoint.metric={row.metric}", f"checkpoint.mode={row.mode}"]
    text = MADE[row.task](data, directory / "text" / row.name) if row.task in MADE else data
    places = [f"task.data={text}", f"run_dir={directory / 'runs' / row.name}", f"cache_dir={directory / 'cache'}"]
    return [f"task={row.task}", *ALWAYS, *COMMON[row.task], *row.overrides, *length, *judged, *places]


def configured(overrides: list[str]) -> tuple[Any, dict[str, Any]]:
    """What `app.train` is given for these overrides."""
    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return configure_node(compose("train", overrides), "train")


def end_with_parent() -> None:
    """Let this process end when the one that started it has, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def measured(
    rows: list[Row], data: str, tenth: bool, directory: Path, overrides: list[str], jobs: int
) -> Iterator[dict[str, Any]]:
    """Rows in order, `jobs` at a time, each in a new process, so that none is helped or hurt by those before it."""

    def result(row: Row) -> dict[str, Any]:
        updates = max(1, row.updates // 10) if tenth else row.updates
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
            try:
                return pool.submit(measure, row, data, updates, directory, overrides).result()
            except Exception as error:  # whatever goes wrong in a row, the others are measured
                return {"row": row.name, "task": row.task, "better": False, "error": f"{type(error).__name__}: {error}"}

    with ThreadPoolExecutor(jobs) as threads:
        yield from threads.map(result, rows)


def table_of(results: list[dict[str, Any]]) -> Figures:
    table = Figures("row", "task", "updates", "seconds", "metric", "before", "baseline", "after", "better")
    for result in results:
        if "error" in result:
            table.add_row(result["row"], result["task"], result["error"])
            continue
        baseline = next(f"{result[name]} ({name})" for name in BASELINES if name in result)
        numbers = (f"{result[key]}" for key in ("updates", "seconds", "metric", "before"))
        table.add_row(
            result["row"], result["task"], *numbers, baseline, f"{result['after']}", "yes" if result["better"] else "NO"
        )
    return table


def chosen(names: str | None) -> list[Row]:
    """The rows with these names, separated by commas; all of them without names."""
    known = {row.name: row for row in ROWS}
    wanted = list(known) if names is None else names.split(",")
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"benchmarks.zoo: --only: no row {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in wanted]


def directory_of_text(given: str | None) -> str:
    """DATA, or $ZOO_DATA, which must hold the four files."""
    path = given or os.environ.get("ZOO_DATA")
    if not path:
        sys.exit(
            "benchmarks.zoo: no data; give a directory with train.en, train.de, valid.en, valid.de, or set ZOO_DATA"
        )
    wanted = [Path(path) / f"{split}.{lang}" for split in ("train", "valid") for lang in ("en", "de")]
    missing = [file.name for file in wanted if not file.is_file() and not Path(f"{file}.gz").is_file()]
    if missing:
        sys.exit(f"benchmarks.zoo: {path} has no {', '.join(missing)} (nor with .gz); give another directory")
    return str(Path(path).resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", metavar="DATA", help="directory of the text; by default $ZOO_DATA")
    parser.add_argument("overrides", nargs="*", help="overrides for all rows, such as trainer.num_threads=1")
    parser.add_argument("--only", metavar="NAME,...", help="these rows alone")
    parser.add_argument("--tenth", action="store_true", help="a tenth of the updates: does everything run?")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=cores, help=f"rows at a time, which share the cores ({cores})")
    parser.add_argument("--out", type=Path, default=Path("outputs/zoo"), help="where runs and results are written")
    args = parser.parse_intermixed_args()
    rows, data = chosen(args.only), directory_of_text(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    results = []
    with (args.out / "zoo.jsonl").open("w", encoding="utf-8") as file:
        threads = f"trainer.num_threads={max(1, cores // args.jobs)}"
        for result in measured(rows, data, args.tenth, args.out, [threads, *args.overrides], args.jobs):
            results.append(result)
            print(json.dumps(result), file=file, flush=True)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table_of(results))
    console.print(f"written to {args.out / 'zoo.jsonl'}")
    sys.exit(any(not result["better"] for result in results))


if __name__ == "__main__":
    main()

"""What every command is asked: the roots of `conf/*.yaml`, typed by Hydra while composing, as `app.config` is.

`ROOTS` says which is whose. That of `app.train`, the configuration of a run, stands in `app.config`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import AUTO, BatchingConfig, TrainConfig
from app.ranges import (
    at_least,
    between,
    directories_of,
    lines_of,
    new_directory,
    one_of,
    positive,
    writable_directory,
)


@dataclass
class TranslateConfig:
    """What `app.generate`, `app.interactive` and `app.serve` have in common."""

    search: Any
    precision: Any  # of products: fp32, bf16, int8 on a CPU, or fp16 on a GPU
    checkpoint: Any  # a run directory, or one checkpoint of it; a list of them is an ensemble
    max_tokens: int  # most tokens of a batch's sources, padding counted
    device: str  # auto, cpu, cuda, cuda:1, ...
    num_threads: int  # threads for tensor operations on the CPU; 0: all cores
    engine: str  # torch; or ctranslate2, for the Transformer with search=beam or greedy (extra `ctranslate2`)
    lang_pair: str | None  # which of a run's pairs of languages to translate, such as de-en; null: the only one
    long_lines: str  # those longer than the models allow: error; or split: after sentences, else clauses, else words

    def check(self) -> Iterator[str]:
        yield from one_of(self, "engine", "torch", "ctranslate2")
        yield from one_of(self, "long_lines", "error", "split")
        yield from positive(self, "max_tokens")
        yield from at_least(self, 0, "num_threads")
        for path in self.checkpoints():
            if not Path(path).is_dir():
                yield f"checkpoint={path}: no such directory; give a run directory, such as outputs/RUN"

    def checkpoints(self) -> list[str]:
        return [str(path) for path in self.checkpoint] if isinstance(self.checkpoint, list) else [str(self.checkpoint)]


@dataclass
class InteractiveConfig(TranslateConfig):
    """Root of `app.interactive`."""

    output: str  # text: the best translation, a line each; fairseq: its S-, H-, D-, P- lines; jsonl: everything

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from one_of(self, "output", "text", "fairseq", "jsonl")
        if self.engine == "ctranslate2" and self.output == "fairseq":
            yield "output=fairseq: engine=ctranslate2 has no scores of single pieces; choose text or jsonl"


@dataclass
class ServeConfig(TranslateConfig):
    """Root of `app.serve`."""

    host: str  # address to listen at; 127.0.0.1: this machine only; 0.0.0.0: everyone
    port: int  # port to listen at
    timeout: float  # seconds that a request may take to arrive, and seconds that its answer may take
    max_lines: int  # most lines of a request
    max_body_bytes: int  # longest request
    max_batch_lines: int  # most lines that are translated together
    max_queue_lines: int  # most lines that wait; a request beyond them is refused
    max_connections: int  # most open connections; one beyond them is refused
    details: bool  # find what the page shows: as many translations as the beam is wide, and attention; false: as search

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from positive(self, "timeout", "max_lines", "max_body_bytes", "max_batch_lines", "max_connections")
        yield from between(self, 1, 65535, "port")
        if self.max_queue_lines < self.max_lines:
            yield f"max_queue_lines={self.max_queue_lines}: must be max_lines={self.max_lines} or more"


@dataclass
class GenerateConfig(InteractiveConfig):
    """Root of `app.generate`."""

    scorer: Any
    split: str  # which split to translate and score
    data: str | None  # directory of the split; null: that of the training run
    input: str | None  # a file to translate instead of a split; -: standard input
    output_file: str | None  # where translations are written; null: to standard output
    buffer_size: int  # lines held at once, and batched by length among each other
    resume: bool  # go on after the whole lines that output_file holds already, instead of writing it anew

    def check(self) -> Iterator[str]:
        yield from super().check()
        if self.resume and (self.output_file is None or self.output == "fairseq"):
            yield "resume=true: needs output_file, and output=text or jsonl"
        yield from positive(self, "buffer_size")
        yield from lines_of(self, "input")
        if self.data is not None and not Path(self.data).is_dir():
            yield f"data={self.data}: no such directory"


@dataclass
class PreprocessConfig:
    """Root of `app.preprocess`."""

    task: Any
    tokenizer: Any
    batching: BatchingConfig  # what the table says of batches and their padding; prepared data does not depend on it
    cache_dir: str  # where prepared data is kept, and found by `app.train`
    splits: list[str] | None  # splits to prepare; null: all that the directories have in both languages
    share: int  # number of this job, from 0, among the `num_shares` that encode a share each: -m share=range(8)
    num_shares: int  # jobs that encode the same text together; the last to finish puts their shares together
    format: str  # cache: what app.train reads; fairseq: also a data-bin directory, which both programs read
    output: str | None  # the data-bin directory to write, for format=fairseq; it must not hold anything yet

    def check(self) -> Iterator[str]:
        yield from writable_directory(self, "cache_dir")
        yield from one_of(self, "format", "cache", "fairseq")
        yield from positive(self, "num_shares")
        if self.batching.max_tokens == AUTO:
            yield "batching.max_tokens=auto: is found by app.train; give a number here"
        if not 0 <= self.share < max(1, self.num_shares):
            yield f"share={self.share}: must be from 0 to num_shares - 1, which is {self.num_shares - 1}"
        if self.format == "fairseq" and self.output is None:
            yield "output: missing; format=fairseq writes a directory, output=DIR"
        if self.format != "fairseq" and self.output is not None:
            yield f"output={self.output}: is written with format=fairseq alone; what app.train reads is in cache_dir"
        if self.output is not None:
            yield from new_directory(self, "output")


@dataclass
class ScoreConfig:
    """Root of `app.score`."""

    scorer: Any
    sys: str  # file of outputs, one a line; -: standard input
    ref: str  # file of references, one a line
    baseline: str | None  # file of another system's outputs: is `sys` better? By paired bootstrap; null: do not ask
    bootstrap_samples: int  # resampled test sets for that
    output: str  # text or json

    def check(self) -> Iterator[str]:
        yield from one_of(self, "output", "text", "json")
        yield from lines_of(self, "sys", "ref", "baseline")
        yield from positive(self, "bootstrap_samples")


@dataclass
class EvaluateConfig:
    """Root of `app.evaluate`."""

    checkpoint: str  # a run directory, whose best checkpoint is taken, or one checkpoint of it
    split: str  # which split to measure
    data: str | None  # directory of the split; null: that of the training run
    cache_dir: str  # where prepared data is kept
    output: str  # text or json
    output_file: str | None  # also write each piece's log-probability here, a JSON object a sample; null: do not
    max_tokens: int  # most tokens of a batch on either side, padding counted
    device: str  # auto, cpu, cuda, cuda:1, ...
    num_threads: int  # threads for tensor operations on the CPU; 0: all cores

    def check(self) -> Iterator[str]:
        yield from one_of(self, "output", "text", "json")
        yield from positive(self, "max_tokens")
        yield from at_least(self, 0, "num_threads")
        yield from directories_of(self, "checkpoint", "data")


@dataclass
class AverageConfig:
    """Root of `app.average`. One of `last`, `best` and `inputs` says which checkpoints."""

    run: str  # the run directory that the checkpoints, the settings and the vocabularies come from
    output: str  # the run directory to write; it must not hold anything yet
    last: int  # the newest N checkpoints; 0: see the others
    best: int  # the best N checkpoints, by checkpoint.metric of the run; 0: see the others
    inputs: list[str]  # directories of checkpoints, of this run or of runs of the same model

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "last", "best")
        yield from directories_of(self, "run")
        if sum(map(bool, (self.last, self.best, self.inputs))) != 1:
            yield f"last={self.last}, best={self.best}, inputs={self.inputs}: give one of them"
        yield from new_directory(self, "output")


@dataclass
class ImportFairseqConfig:
    """Root of `app.import_fairseq`."""

    tokenizer: Any  # what the text was split into pieces with before it was binarised
    checkpoint: str  # a .pt file of fairseq's
    data: str  # the data-bin directory it was trained on, or another with its dictionaries
    output: str  # the run directory to write; it must not hold anything yet
    ignore: list[str]  # options of the checkpoint that have no equivalent here and are to be left aside
    reset_optimizer: bool  # take the weights alone: training starts anew from them
    use_ema: bool  # translate with the moving average of the weights, where there is one; false: with the weights

    def check(self) -> Iterator[str]:
        yield from lines_of(self, "checkpoint")
        yield from directories_of(self, "data")
        yield from new_directory(self, "output")


@dataclass
class ExportConfig:
    """Root of `app.export`."""

    checkpoint: str  # a run directory, whose best checkpoint is taken, or one checkpoint of it
    format: str  # ctranslate2, fairseq (Transformers), safetensors (any), onnx, torch_export (encoder, decoder graphs)
    output: str  # the directory to write; it must not be there yet

    def check(self) -> Iterator[str]:
        yield from one_of(self, "format", "ctranslate2", "fairseq", "safetensors", "onnx", "torch_export")
        yield from directories_of(self, "checkpoint")
        if Path(self.output).exists():
            yield f"output={self.output}: is there already; give a new directory"


ROOTS: dict[str, type] = {
    "average": AverageConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "generate": GenerateConfig,
    "import_fairseq": ImportFairseqConfig,
    "interactive": InteractiveConfig,
    "preprocess": PreprocessConfig,
    "score": ScoreConfig,
    "serve": ServeConfig,
    "train": TrainConfig,
}

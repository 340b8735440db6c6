"""The closed sections of the configuration: what every run has, whatever its plug-ins.

Hydra types these while composing. Names, types and meaning stand here; values stand in `conf/`. The plug-ins' own
schemas stand beside their classes. This module needs nothing of the program, and not torch, so that `--help` is quick.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from app.ranges import at_least, between, one_of, positive, positive_or, writable_directory

AUTO = "auto"


@dataclass
class TrainerConfig:
    """When to update, validate, log and stop."""

    max_epoch: int  # stop after this many epochs; 0: no limit
    max_update: int  # stop after this many updates; 0: no limit
    stop_time_hours: float  # stop after this much training time, resumed time included; 0: no limit
    patience: int  # stop when the checkpoint metric has not improved for this many validations; 0: never
    update_freq: int  # batches of each process whose gradients are added before an update
    clip_norm: float  # largest 2-norm of the gradient; 0: no clipping
    max_nonfinite_updates: int  # updates in a row that may be skipped for a loss or gradient that is not finite
    on_loss_spike: str  # a loss six sigma above the last 128: log, skip the update, rollback (5 times in vain), or off
    try_longest_batch: bool  # before training, see whether the largest batch fits into memory
    validate_interval: int  # validate every N epochs; 0: never at an epoch's end
    validate_interval_updates: int  # validate every N updates; 0: only at an epoch's end
    log_interval: int  # report every N updates
    train_split: str  # name of the split to learn from
    valid_split: str  # name of the split to validate on
    decode_valid: bool  # also translate the validation split and score it at every validation
    num_threads: int  # threads for tensor operations on the CPU; 0: all cores
    device: str  # auto, cpu, cuda, cuda:1, ...
    profile: bool  # write a trace of three updates, and where the time of all goes, into the run's directory profile

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "max_epoch", "max_update", "stop_time_hours", "patience", "clip_norm")
        yield from at_least(self, 0, "validate_interval", "validate_interval_updates", "num_threads")
        yield from positive(self, "update_freq", "log_interval", "max_nonfinite_updates")
        yield from one_of(self, "on_loss_spike", "log", "skip", "rollback", "off")
        if not (self.max_epoch or self.max_update or self.stop_time_hours or self.patience):
            yield "max_update: nothing would ever end this run; set max_update, max_epoch, stop_time_hours or patience"


@dataclass
class CheckpointConfig:
    """What is saved, when, and what is kept."""

    save_interval: int  # also save every N epochs; 0: only after each validation
    save_interval_updates: int  # also save every N updates; 0: see save_interval
    save_interval_minutes: float  # also save when the last save is N minutes ago; 0: never for that
    keep_last: int  # newest checkpoints to keep; at least 1
    keep_best: int  # best checkpoints to keep; 0: none
    keep_interval_updates_pattern: int  # also keep every checkpoint of a multiple of N updates; 0: none
    metric: str  # the validation metric that says which is best: loss, nll_loss, ppl, bleu, chrf, ...
    mode: str  # min or max: which direction of the metric is better
    save_async: bool  # write while training goes on; false: training waits for the disk
    on_write_error: str  # warn: train on, and save at the next interval; stop: end with exit code 5
    resume: bool  # go on from the run directory's newest valid checkpoint; false: refuse a directory that holds one
    may_differ: list[str]  # settings that may differ from those that the run directory's checkpoints were made with
    finetune_from: str | None  # run or checkpoint directory whose weights and vocabularies start a new run
    finetune_partial: bool  # take the weights whose names and shapes fit; false: all must fit
    reset_optimizer: bool  # false: finetune_from gives the optimizer's state too, and the averages of callbacks
    reset_lr_scheduler: bool  # false: finetune_from gives the schedule's state and the number of updates too
    reset_meters: bool  # false: finetune_from gives the best metric, patience and training time so far too
    reset_dataloader: bool  # false: finetune_from gives the position in the data too

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "save_interval", "save_interval_updates", "save_interval_minutes")
        yield from at_least(self, 0, "keep_best", "keep_interval_updates_pattern")
        yield from positive(self, "keep_last")
        yield from one_of(self, "mode", "min", "max")
        yield from one_of(self, "on_write_error", "warn", "stop")
        if self.finetune_from is not None and not Path(self.finetune_from).exists():
            yield f"finetune_from={self.finetune_from}: no such run or checkpoint directory"
        if self.finetune_partial and not self.reset_optimizer:
            yield "reset_optimizer=False: belongs to weights that all fit; set finetune_partial=false"
        for name in ("optimizer", "lr_scheduler", "meters", "dataloader"):
            if self.finetune_from is None and not getattr(self, f"reset_{name}"):
                yield f"reset_{name}=False: says what finetune_from gives, which is not set"


@dataclass
class BatchingConfig:
    """How sentences are put into batches."""

    max_tokens: Any  # most tokens of a training batch on either side, padding counted; auto: what memory holds
    max_sentences: int  # most sentences of a batch; 0: no limit
    max_tokens_valid: int  # most tokens of a validation batch
    shuffle: bool  # false: batches in order of length, for debugging
    seed: int  # the order of an epoch is a function of this and the epoch's number
    window: int  # order=lengths: more pairs than this are shuffled, sorted and batched this many at a time; 0: never
    order: str  # lengths: formed anew each epoch, with little padding; fairseq: its batches, sorted once and shuffled
    required_batch_size_multiple: int  # order=fairseq: sizes of batches are multiples of this where they can be
    prefetch: int  # batches made ahead of their use by a thread; 0: none
    num_workers: int  # processes that make the batches of training, each two ahead; 0: the thread does
    worker_timeout: float  # seconds to wait for a batch of such a process before giving up

    def check(self) -> Iterator[str]:
        yield from positive_or(self, AUTO, "max_tokens")
        yield from positive(self, "max_tokens_valid", "worker_timeout")
        yield from at_least(self, 0, "max_sentences", "prefetch", "num_workers", "window")
        yield from one_of(self, "order", "lengths", "fairseq")
        yield from positive(self, "required_batch_size_multiple")
        if self.required_batch_size_multiple > 1 and self.order != "fairseq":
            yield f"required_batch_size_multiple={self.required_batch_size_multiple}: is for order=fairseq only"

    @property
    def most_tokens(self) -> int:
        """`max_tokens` as a number. Raises ConfigError where it is `auto`, and none was found yet."""
        if not isinstance(self.max_tokens, int):
            raise ConfigError([f"batching.max_tokens={self.max_tokens}: is found by app.train; give a number here"])
        return self.max_tokens

    @property
    def window_of_order(self) -> int:
        """`window`, or 0: fairseq's order is one of all samples."""
        return self.window if self.order == "lengths" else 0


@dataclass
class DistributedConfig:
    """Several processes for one run; started by the command itself, by torchrun, or as a job's tasks."""

    strategy: str  # none: one process; ddp: the whole model in each; fsdp: parameters and optimizer state in parts
    nproc_per_node: int  # processes that the command starts on this machine; 0: one a GPU, or one. torchrun has its own
    world_size: int  # processes of the run; 0: as many as there are, which is filled in when they start
    backend: str  # what carries gradients: auto (nccl where there are GPUs), gloo, nccl
    bucket_cap_mb: float  # ddp: gradients are sent in buckets of this size, in MiB
    overlap: bool  # ddp: send buckets while the backward pass still runs
    first_timeout: float  # seconds to wait for another process until the first update, in validation and when saving
    min_timeout: float  # least seconds to wait for another process in an update
    timeout_factor: float  # wait this many times the slowest update so far, but at least min_timeout
    check_interval: int  # ddp: compare the weights of all processes every N updates; 0: never
    checkpoint_activations: bool  # compute each layer twice instead of keeping what its backward pass needs
    reshard_after_forward: bool  # fsdp: free a layer's whole weights between its forward and backward pass

    def check(self) -> Iterator[str]:
        yield from one_of(self, "strategy", "none", "ddp", "fsdp")
        yield from one_of(self, "backend", "auto", "gloo", "nccl")
        yield from at_least(self, 0, "nproc_per_node", "world_size", "check_interval")
        yield from positive(self, "bucket_cap_mb", "first_timeout", "min_timeout", "timeout_factor")
        if self.strategy == "none" and self.nproc_per_node > 1:
            yield f"nproc_per_node={self.nproc_per_node}: distributed=none is one process; choose distributed=ddp"


@dataclass
class TrainConfig:
    """Root of `app.train`. The groups are typed by their own schemas (see `app.plugins`)."""

    task: Any
    model: Any
    criterion: Any
    optimizer: Any
    lr_scheduler: Any
    tokenizer: Any
    search: Any
    scorer: Any
    tracker: Any
    callbacks: Any
    precision: Any
    trainer: TrainerConfig
    checkpoint: CheckpointConfig
    batching: BatchingConfig
    distributed: DistributedConfig
    seed: int  # of parameters, dropout and the order of data
    run_dir: str  # where everything of this run is written, and found again by the same command
    cache_dir: str  # prepared data, shared by all runs

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "seed")
        yield from writable_directory(self, "run_dir", "cache_dir")


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
    format: str  # ctranslate2 (Transformer only), safetensors (any), onnx or torch_export (encoder and decoder graphs)
    output: str  # the directory to write; it must not be there yet

    def check(self) -> Iterator[str]:
        yield from one_of(self, "format", "ctranslate2", "safetensors", "onnx", "torch_export")
        yield from directories_of(self, "checkpoint")
        if Path(self.output).exists():
            yield f"output={self.output}: is there already; give a new directory"


def directories_of(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that must name a directory; null names none."""
    for name in names:
        path = getattr(cfg, name)
        if path is not None and not Path(path).is_dir():
            yield f"{name}={path}: no such directory"


def new_directory(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that must name a directory that is not there yet, or is empty."""
    for name in names:
        path = Path(getattr(cfg, name))
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            yield f"{name}={path}: is there already; give a new directory"


def lines_of(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that must name a file that can be read, or `-`."""
    for name in names:
        path = getattr(cfg, name)
        if path not in (None, "-") and (not Path(path).exists() or Path(path).is_dir()):
            yield f"{name}={path}: no such file"

"""The configuration of a run: its closed sections, which every run has, whatever its plug-ins.

Hydra types these while composing. Names, types and meaning stand here; values stand in `conf/`. The plug-ins' own
schemas stand beside their classes; the other commands' configurations in `app.roots`. This module needs nothing of the
program, and not torch, so that `--help` is quick.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from app.ranges import at_least, one_of, positive, positive_or, writable_directory

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

"""The training flow. `Trainer.train` is the overview; what is not the flow is called from it by one verb each."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from app.callbacks import Callback
from app.config import CheckpointConfig, TrainerConfig
from app.data.batch import Batch
from app.errors import NumericsError, Stopped
from app.interfaces import BatchIterator, Criterion, Loss, LRScheduler, Model, Task
from app.meters import Meters
from app.runtime.checkpoint import Checkpoint, Checkpoints, Snapshot
from app.runtime.faults import reach
from app.runtime.precision import PreciseOptimizer
from app.runtime.saver import Saver
from app.runtime.seeds import set_seed
from app.runtime.signals import StopSignals
from app.trackers.fanout import Trackers

logger = logging.getLogger(__name__)

MOST_SKIPPED = 10  # updates in a row whose gradients are not finite, before a run gives up


class Evaluate(Protocol):
    """Metrics of the validation split that take more than a loss, such as BLEU by decoding."""

    def __call__(self, model: Model) -> dict[str, float]: ...


@dataclass
class Parts:
    """The plug-ins of a run, made and put together."""

    task: Task
    model: Model
    criterion: Criterion
    optimizer: PreciseOptimizer
    lr_scheduler: LRScheduler
    callbacks: dict[str, Callback]


class Trainer:
    """Trains `parts.model` until a limit of `cfg` is reached, and keeps checkpoints in `run_dir`."""

    def __init__(
        self,
        cfg: TrainerConfig,
        checkpoint: CheckpointConfig,
        seed: int,
        run_dir: Path,
        parts: Parts,
        trackers: Trackers,
        evaluate: Evaluate | None = None,
    ):
        self.cfg, self.checkpoint_cfg, self.seed, self.run_dir = cfg, checkpoint, seed, run_dir
        self.task, self.model, self.criterion = parts.task, parts.model, parts.criterion
        self.optimizer, self.lr_scheduler, self.callbacks = parts.optimizer, parts.lr_scheduler, parts.callbacks
        self.trackers, self.evaluate = trackers, evaluate
        self.device = next(self.model.parameters()).device
        self.checkpoints = Checkpoints(checkpoint, run_dir)
        self.saver = Saver(checkpoint, self.checkpoints)
        self.signals = StopSignals()
        self.epoch, self.num_updates, self.num_skipped = 1, 0, 0
        self.best: float | None = None  # of checkpoint.metric
        self.num_validations_without_gain = 0
        self.valid_metrics: dict[str, float] = {}
        self.validated_at = self.validated_epoch = -1
        self.wall_before, self.started_at = 0.0, time.perf_counter()
        self.itr: BatchIterator | None = None  # of this epoch
        self.position: dict[str, int] | None = None  # where a checkpoint's iterator stood

    def train(self) -> dict[str, float]:
        """Returns the metrics of the last validation. Raises Stopped when a signal ended the run."""
        with self.signals, self.saver:
            self.each_callback(lambda callback: callback.on_start(self))
            train_set = self.task.dataset(self.cfg.train_split)
            if self.cfg.validate_interval or self.cfg.validate_interval_updates:  # read now, so that faults are now too
                self.valid_set = self.task.dataset(self.cfg.valid_split)
            while not self.stop_reason():
                itr = self.batches(train_set)
                for batches in grouped(itr, self.cfg.update_freq):
                    losses = [self.train_step(batch, i) for i, batch in enumerate(batches)]
                    if self.average_and_clip_gradients(losses):
                        self.optimizer.step()
                        self.num_updates += 1
                        self.lr_scheduler.step_update(self.num_updates)
                        self.after_update(losses)
                    if self.stop_reason():
                        break
                else:
                    self.after_epoch()
            self.finish()
        return self.valid_metrics

    def batches(self, dataset: Any) -> BatchIterator:
        """This epoch's batches, from where a checkpoint left off."""
        self.itr = itr = self.task.get_batch_iterator(dataset, self.epoch)
        if self.position is not None:
            itr.load_state_dict(self.position)
            self.position = None
        self.meters = Meters()
        return itr

    def train_step(self, batch: Batch, number: int) -> Loss:
        """Forward and backward; random draws are those of this update and batch, whatever ran before."""
        reach("batch")
        set_seed(self.seed, self.num_updates + self.num_skipped, number)
        self.model.train()
        return self.task.train_step(batch.to(self.device), self.model, self.criterion, self.optimizer)

    def average_and_clip_gradients(self, losses: list[Loss]) -> bool:
        """Gradients become means over all that the losses count. False: not finite, and the update is skipped."""
        sample_size = sum(loss.sample_size for loss in losses)
        gnorm = float(self.optimizer.average_and_clip(1 / max(sample_size, 1), self.cfg.clip_norm))
        if math.isfinite(gnorm):
            self.num_skipped = 0
            self.meters.add(losses)
            self.meters.add_update(gnorm, self.cfg.clip_norm)
            return True
        self.num_skipped += 1
        logger.warning("update %d: gradients are not finite, skipped", self.num_updates + 1)
        self.optimizer.skip()
        if self.num_skipped >= MOST_SKIPPED and not self.optimizer.is_finding_its_scale:
            raise NumericsError(
                f"update {self.num_updates + 1}: gradients were not finite {MOST_SKIPPED} times in a row; lower "
                f"optimizer.lr (now {self.optimizer.lr:g}), set trainer.clip_norm, or use precision=fp32"
            )
        return False

    def after_update(self, losses: list[Loss]) -> None:
        """Averages, the log, validation and checkpoints, each at its interval."""
        reach("update", self.num_updates)
        self.each_callback(lambda callback: callback.after_update(self))
        if self.num_updates % self.cfg.log_interval == 0:
            self.log_training()
        validates = due(self.num_updates, self.cfg.validate_interval_updates)
        saves = self.saver.is_due(self.num_updates) or validates
        if saves and self.itr is not None and len(self.itr):  # an epoch's last update is followed by `after_epoch`
            if validates:
                self.validate_and_judge()
            self.save()

    def after_epoch(self) -> None:
        """Validation and a checkpoint at their intervals, with the scheduler's epoch step between them."""
        by_updates = due(self.num_updates, self.cfg.validate_interval_updates)
        validates = by_updates or due(self.epoch, self.cfg.validate_interval)
        if validates and self.validated_at != self.num_updates:
            self.validate_and_judge()
        judged = self.valid_metrics[self.checkpoint_cfg.metric] if self.validated_epoch == self.epoch else None
        self.lr_scheduler.step(self.epoch, judged)
        self.each_callback(lambda callback: callback.after_epoch(self))
        self.epoch, self.itr = self.epoch + 1, None
        by_epochs = due(self.epoch - 1, self.checkpoint_cfg.save_interval)
        if self.saver.is_due(self.num_updates) or validates or by_epochs:
            self.save()

    def validate_and_judge(self) -> None:
        self.validated_at, self.validated_epoch = self.num_updates, self.epoch
        self.valid_metrics = self.validate()
        self.judge(self.valid_metrics[self.checkpoint_cfg.metric])
        best = {} if self.best is None else {f"best_{self.checkpoint_cfg.metric}": self.best}
        self.trackers.log("valid", self.num_updates, {**self.valid_metrics, **best, "epoch": self.epoch})

    def validate(self) -> dict[str, float]:
        """loss, nll_loss and ppl of the validation split, and what `evaluate` adds."""
        self.each_callback(lambda callback: callback.before_validation(self))
        self.model.eval()
        meters = Meters()
        for batch in self.task.get_batch_iterator(self.valid_set):
            reach("validate")
            meters.add([self.task.valid_step(batch.to(self.device), self.model, self.criterion, self.optimizer)])
        metrics = meters.means() | (self.evaluate(self.model) if self.evaluate else {})
        self.each_callback(lambda callback: callback.after_validation(self, metrics))
        return metrics

    def judge(self, value: float) -> None:
        """Note whether the checkpoint metric got better."""
        sign = 1 if self.checkpoint_cfg.mode == "max" else -1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best):
            self.best, self.num_validations_without_gain = value, 0
        else:
            self.num_validations_without_gain += 1

    def stop_reason(self) -> str | None:
        """Why no further update is made."""
        cfg = self.cfg
        if self.signals.received:
            return f"signal {self.signals.received}"
        if 0 < cfg.max_update <= self.num_updates:
            return f"max_update={cfg.max_update}"
        if 0 < cfg.max_epoch < self.epoch:
            return f"max_epoch={cfg.max_epoch}"
        if 0 < cfg.patience <= self.num_validations_without_gain:
            return f"patience={cfg.patience}"
        if 0 < cfg.stop_time_hours <= self.train_wall / 3600:
            return f"stop_time_hours={cfg.stop_time_hours}"
        return None

    def finish(self) -> None:
        """The last validation, if the run has any, and checkpoint. A signal's stop is saved at once."""
        logger.info("stopped after %d updates: %s", self.num_updates, self.stop_reason())
        validates = self.cfg.validate_interval or self.cfg.validate_interval_updates
        if validates and not self.signals.received and self.validated_at != self.num_updates:
            self.validate_and_judge()
            self.save(last=True)
        else:
            self.saver.wait()
            if self.saver.newest != self.num_updates:
                self.save(last=True)
        self.each_callback(lambda callback: callback.on_end(self))
        if self.signals.received:
            self.signals.pass_on()
            raise Stopped("stopped by a signal, state saved; the same command goes on", self.signals.received)

    def log_training(self) -> None:
        assert self.itr is not None
        progress = {"lr": self.optimizer.lr, "padding": self.itr.padding, "train_wall": self.train_wall}
        metrics = {**self.meters.means(), **self.meters.rates(), **progress, "epoch": self.epoch}
        self.trackers.log("train", self.num_updates, metrics)
        self.meters = Meters()

    def save(self, last: bool = False) -> None:
        """Have a checkpoint written while training goes on; the `last` one is waited for, and may be a StorageError."""
        metrics = self.valid_metrics if self.validated_at == self.num_updates else {}
        averaged = next((w for w in (c.averaged() for c in self.callbacks.values()) if w is not None), None)
        held = (self.num_updates, self.model.state_dict(), averaged, self.state_dict(), metrics)
        copy = self.checkpoint_cfg.save_async and not last
        self.saver.save(Snapshot.take(*held, copy=copy), last)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the weights. Random draws need nothing (`train_step`)."""
        return {
            "num_updates": self.num_updates,
            "num_skipped": self.num_skipped,
            "iterator": self.itr.state_dict() if self.itr is not None else {"epoch": self.epoch, "num_samples": 0},
            "metric": self.checkpoint_cfg.metric,
            "best": self.best,
            "num_validations_without_gain": self.num_validations_without_gain,
            "validated_at": self.validated_at,
            "validated_epoch": self.validated_epoch,
            "valid_metrics": self.valid_metrics,
            "train_wall": self.train_wall,
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in self.callbacks.items()},
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this run."""
        state = checkpoint.state()
        checkpoint.load_model(self.model)
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        for name, callback in self.callbacks.items():
            callback.load_state_dict(state["callbacks"].get(name, {}))
            if "averaged.safetensors" in checkpoint.files:
                callback.load_averaged(checkpoint.tensors("averaged.safetensors"))
        self.criterion.load_state_dict(state["criterion"])
        for name in ("num_updates", "num_skipped", "validated_at", "validated_epoch", "valid_metrics"):
            setattr(self, name, state[name])
        if state["metric"] == self.checkpoint_cfg.metric:
            self.best, self.num_validations_without_gain = state["best"], state["num_validations_without_gain"]
        self.saver.newest, self.wall_before = self.num_updates, state["train_wall"]
        self.position = state["iterator"]
        self.epoch = state["iterator"]["epoch"]
        self.lr_scheduler.step_update(self.num_updates)

    @property
    def train_wall(self) -> float:
        """Seconds of training, resumed time included."""
        return self.wall_before + time.perf_counter() - self.started_at

    def each_callback(self, call: Callable[[Callback], None]) -> None:
        for callback in self.callbacks.values():
            call(callback)


def grouped(batches: BatchIterator, size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the last one may be shorter."""
    stream = iter(batches)
    while group := list(islice(stream, size)):
        yield group


def due(number: int, interval: int) -> bool:
    return interval > 0 and number % interval == 0


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)

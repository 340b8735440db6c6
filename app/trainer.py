"""The training flow. `Trainer.train` is the overview; what is not the flow is called from it by one verb each."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from app.callbacks import Callback
from app.config import CheckpointConfig, TrainerConfig
from app.data.batch import Batch
from app.errors import Stopped
from app.interfaces import BatchIterator, Criterion, Loss, LRScheduler, Model, Shard, Task
from app.judgement import Judgement
from app.meters import Meters
from app.profiling import Profile
from app.run_state import RunState
from app.runtime.checkpoint import Checkpoints
from app.runtime.distributed import Workers
from app.runtime.faults import asked, reach, spoil
from app.runtime.gradients import GradientBuckets
from app.runtime.numerics import Numerics, Verdict, give_up, note_skipped
from app.runtime.out_of_memory import HalvingRetry, rehearse
from app.runtime.placement import GradientSums, Whole
from app.runtime.precision import PreciseOptimizer
from app.runtime.saver import Saver
from app.runtime.seeds import set_seed
from app.runtime.signals import SAVED, StopSignals
from app.stopping import Stopping
from app.trackers.fanout import Trackers
from app.utilization import Utilization

logger = logging.getLogger(__name__)


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
    workers: Workers = field(default_factory=Workers)
    gradients: GradientSums = field(default_factory=GradientBuckets)
    sharding: Whole = field(default_factory=Whole)
    utilization: Utilization = field(default_factory=lambda: Utilization(torch.device("cpu")))


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
        self.workers, self.gradients, self.sharding = parts.workers, parts.gradients, parts.sharding
        self.step_criterion = cast(Criterion, self.sharding.criterion(self.criterion))
        self.trackers, self.evaluate, self.utilization = trackers, evaluate, parts.utilization
        self.device = next(self.model.parameters()).device
        self.profile = Profile(run_dir / "profile" if cfg.profile and self.workers.is_first else None, self.device)
        self.backward = self.profile.of_backward(self.optimizer)
        self.checkpoints = Checkpoints(checkpoint, run_dir)
        self.saver = Saver(checkpoint, self.checkpoints)
        self.judgement, self.state = Judgement(checkpoint), RunState(self)
        self.signals = StopSignals(self.workers.world_size > 1)
        self.stopping = Stopping(cfg, self.signals)
        self.numerics = Numerics(cfg.on_loss_spike, cfg.max_nonfinite_updates)
        self.retry = HalvingRetry(self.optimizer.parameters, self.gradients)
        if asked():
            self.criterion.register_forward_hook(lambda _module, _args, loss: spoil(loss, self.attempt))
        self.epoch, self.num_updates = 1, 0
        self.wall_before, self.started_at = 0.0, time.perf_counter()
        self.is_rehearsed = not cfg.try_longest_batch
        self.itr: BatchIterator | None = None  # of this epoch
        self.position: dict[str, int] | None = None  # where a checkpoint's iterator stood

    def train(self) -> dict[str, float]:
        """Returns the metrics of the last validation. Raises Stopped when a signal ended the run."""
        with self.signals, self.saver:
            self.each_callback(lambda callback: callback.on_start(self))
            with self.workers.first_goes_ahead():
                train_set = self.task.dataset(self.cfg.train_split)
                if self.cfg.validate_interval or self.cfg.validate_interval_updates:  # faults in it are told now too
                    self.valid_set = self.task.dataset(self.cfg.valid_split)
            self.workers.started()
            self.agree([])
            while not self.stop_reason():
                itr = self.batches(train_set)
                for batches in self.profile.each("data", grouped(itr, self.cfg.update_freq)):
                    losses = [loss for i, batch in enumerate(batches) for loss in self.train_step(batch, i, batches)]
                    with self.profile.part("optimizer"):
                        if is_taken := self.average_and_clip_gradients(losses, batches):
                            self.optimizer.step()
                    if is_taken:
                        self.num_updates += 1
                        self.lr_scheduler.step_update(self.num_updates)
                        self.after_update(losses)
                    if self.stop_reason():
                        break
                else:
                    self.after_epoch()
            self.finish()
        return self.judgement.valid_metrics

    def batches(self, dataset: Any) -> BatchIterator:
        """This worker's batches of this epoch, from where a checkpoint left off."""
        shard = Shard(self.workers.rank, self.workers.world_size, self.sharding.is_split)
        self.itr = itr = self.task.get_batch_iterator(dataset, self.epoch, shard)
        if self.position is not None:
            itr.load_state_dict(self.position)
            self.position = None
        if not self.is_rehearsed:
            rehearse(self.forward_backward, itr.longest(), self.model, self.optimizer.zero_grad)
            self.is_rehearsed = True
        self.meters = Meters()
        return itr

    def train_step(self, batch: Batch, number: int, batches: list[Batch]) -> list[Loss]:
        """Forward and backward of one of an update's batches; several losses where it was split.

        Random draws are those of this update and of the batch's number among all workers', whatever ran before.
        """
        assert (itr := self.itr) is not None
        reach("batch")
        set_seed(self.seed, self.attempt, number * self.workers.world_size + self.workers.rank)
        self.gradients.begin(last=number + 1 == len(batches))
        run = partial(self.retry.run, self.forward_backward, batch, lambda whole: itr.halves(whole))
        with self.profile.part("forward"):
            return self.utilization.counted(run)

    def forward_backward(self, batch: Batch) -> Loss:
        self.model.train()
        return self.task.train_step(batch.to(self.device), self.model, self.step_criterion, self.backward)

    @property
    def attempt(self) -> int:
        """The number, from 0, of the update that is being made; those skipped before it count until it is made."""
        return self.num_updates + self.numerics.num_skipped

    def agree(self, losses: list[Loss]) -> tuple[float, float]:
        """What the losses count and their sum, over all workers; and all learn who asks to stop, or to save."""
        own = [sum(loss.sample_size for loss in losses), sum(float(loss.value) for loss in losses)]
        own.append(float(self.workers.is_first and self.saver.is_late()))
        sample_size, loss, is_late, *requests = self.workers.total([*own, *self.stopping.requests(self.train_wall)])
        self.state.is_late = is_late > 0
        self.stopping.learn(requests)
        return max(sample_size, 1), loss

    def average_and_clip_gradients(self, losses: list[Loss], batches: list[Batch]) -> bool:
        """Gradients become means over all that all workers' losses count. False: this update is not to be made."""
        self.gradients.finish()
        sample_size, loss = self.agree(losses)
        self.workers.updated()
        gnorm = float(self.optimizer.average_and_clip(1 / sample_size, self.cfg.clip_norm))
        verdict = self.numerics.judge(self.num_updates, loss / sample_size, gnorm, lambda: sample_ids(batches))
        if verdict is Verdict.TAKE:
            self.meters.add(losses)
            self.meters.add_update(gnorm, self.cfg.clip_norm)
            return True
        self.optimizer.skip()
        if self.numerics.is_hopeless and not self.optimizer.is_finding_its_scale:
            path, skipped = self.run_dir / "skipped_batches.json", self.workers.gather(list(self.numerics.skipped))
            if self.workers.is_first:
                note_skipped(path, self.num_updates, skipped)
            raise give_up(self.num_updates, self.numerics.num_skipped, self.optimizer.lr, path)
        if verdict is Verdict.ROLL_BACK and self.state.roll_back():
            self.each_callback(lambda callback: callback.on_start(self))
        return False

    def after_update(self, losses: list[Loss]) -> None:
        """Averages, the log, validation and checkpoints, each at its interval."""
        if reach("update", self.num_updates) == "differ":
            self.optimizer.parameters[0].data.add_(1e-3)
        self.workers.compare(self.num_updates, self.model.named_parameters())
        self.each_callback(lambda callback: callback.after_update(self))
        self.profile.updated()
        if self.num_updates % self.cfg.log_interval == 0:
            self.log_training()
        validates = due(self.num_updates, self.cfg.validate_interval_updates)
        saves = self.state.is_due() or validates
        if saves and self.itr is not None and not self.itr.is_done():  # after the last update comes `after_epoch`
            if validates:
                self.validate_and_judge()
            self.state.save()

    def after_epoch(self) -> None:
        """Validation and a checkpoint at their intervals, with the scheduler's epoch step between them."""
        by_updates = due(self.num_updates, self.cfg.validate_interval_updates)
        validates = by_updates or due(self.epoch, self.cfg.validate_interval)
        if validates and not self.judgement.of_update(self.num_updates):
            self.validate_and_judge()
        self.lr_scheduler.step(self.epoch, self.judgement.of_epoch(self.epoch))
        self.each_callback(lambda callback: callback.after_epoch(self))
        self.epoch, self.itr = self.epoch + 1, None
        by_epochs = due(self.epoch - 1, self.checkpoint_cfg.save_interval)
        if self.state.is_due() or validates or by_epochs:
            self.state.save()

    def validate_and_judge(self) -> None:
        with self.workers.patient():
            metrics = self.validate()
        told = self.judgement.take(metrics, self.num_updates, self.epoch)
        self.trackers.log("valid", self.num_updates, {**told, "epoch": self.epoch})

    def validate(self) -> dict[str, float]:
        """loss, nll_loss and ppl of the validation split, and what `evaluate` adds."""
        self.each_callback(lambda callback: callback.before_validation(self))
        with self.profile.part("validation"), self.sharding.opened(self.model, writes=False) as model:
            metrics = self.measure(cast(Model, model))
        self.each_callback(lambda callback: callback.after_validation(self, metrics))
        return metrics

    def measure(self, model: Model) -> dict[str, float]:
        model.eval()
        meters = Meters()
        shard = Shard(self.workers.rank, self.workers.world_size)
        for batch in self.task.get_batch_iterator(self.valid_set, shard=shard):
            reach("validate")
            meters.add([self.task.valid_step(batch.to(self.device), model, self.criterion, self.optimizer)])
        meters.add_up(self.workers.gather)
        return meters.means() | (self.evaluate(model) if self.evaluate else {})

    def stop_reason(self) -> str | None:
        """Why no further update is made. Alone, a request counts at once; with others, when all know of it."""
        if self.workers.world_size == 1:
            self.stopping.learn(self.stopping.requests(self.train_wall))
        return self.stopping.reason(self.num_updates, self.epoch, self.judgement.num_validations_without_gain)

    def finish(self) -> None:
        """The last validation, if the run has any, and checkpoint. A signal's stop is saved at once."""
        logger.info("stopped after %d updates: %s", self.num_updates, self.stop_reason())
        validates = bool(self.cfg.validate_interval or self.cfg.validate_interval_updates)
        validates = validates and not self.stopping.signal and not self.judgement.of_update(self.num_updates)
        if validates:
            self.validate_and_judge()
        if validates or not self.state.is_saved():
            self.state.save(last=True)
        self.profile.end()
        self.each_callback(lambda callback: callback.on_end(self))
        if self.stopping.signal:
            self.signals.pass_on(self.stopping.signal, self.workers.is_first)
            raise Stopped(SAVED, self.stopping.signal)

    def log_training(self) -> None:
        assert self.itr is not None
        progress = {"lr": self.optimizer.lr, "padding": self.itr.padding, "train_wall": self.train_wall}
        self.meters.add_up(self.workers.gather)
        rates = self.meters.rates()
        rates |= self.utilization.share(rates["wps"], self.itr.padding, self.workers.world_size)
        metrics = {**self.meters.means(), **rates, **progress, **self.profile.shares(), "epoch": self.epoch}
        self.trackers.log("train", self.num_updates, metrics)
        self.meters = Meters()

    @property
    def train_wall(self) -> float:
        """Seconds of training, resumed time included."""
        return self.wall_before + time.perf_counter() - self.started_at

    def each_callback(self, call: Callable[[Callback], None]) -> None:
        for callback in self.callbacks.values():
            call(callback)


def grouped(batches: BatchIterator, size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the last may be shorter, and empty where only other workers have batches left."""
    steps = batches.steps()
    while group := list(islice(steps, size)):
        yield [batch for batch in group if batch is not None]


def sample_ids(batches: list[Batch]) -> list[int]:
    return [number for batch in batches for number in batch.ids.tolist()]


def due(number: int, interval: int) -> bool:
    return interval > 0 and number % interval == 0


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)

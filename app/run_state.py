"""What checkpoints have of a run: when it is written, what it is, and how a trainer gets it back."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from app.runtime.checkpoint import Checkpoint, Snapshot

if TYPE_CHECKING:  # which has one of these
    from app.trainer import Trainer

RESETS = ("optimizer", "lr_scheduler", "meters", "dataloader")  # what `checkpoint.reset_...` speaks of


class RunState:
    """A trainer's state, in and out of checkpoints."""

    def __init__(self, trainer: "Trainer"):
        self.trainer = trainer
        self.is_late = False  # whether an interval of minutes is over by the first worker's clock, as all have heard

    def is_due(self) -> bool:
        """Whether an interval of updates or minutes is over."""
        return self.trainer.saver.is_due(self.trainer.num_updates) or self.is_late

    def save(self, last: bool = False) -> None:
        """Have a checkpoint written while training goes on; the `last` one is waited for, and may be a StorageError."""
        trainer, sharding, workers = self.trainer, self.trainer.sharding, self.trainer.workers
        self.is_late = False
        metrics = trainer.judgement.of_update(trainer.num_updates)
        averaged = next((w for w in (c.averaged() for c in trainer.callbacks.values()) if w is not None), None)
        averaged, state = sharding.gathered(averaged), sharding.gathered(self.state_dict())
        with workers.patient(), sharding.opened(trainer.model, writes=False) as model:
            held = (trainer.num_updates, model.state_dict(), averaged, state, metrics)
            if workers.is_first:
                copy = trainer.checkpoint_cfg.save_async and not last
                trainer.saver.save(Snapshot.take(*held, copy=copy), last)
            workers.wait()  # a rank that ended before the last checkpoint is whole would have the first one killed

    def is_saved(self) -> bool:
        """Whether a whole checkpoint of this update is on disk, once nothing is being written."""
        trainer = self.trainer
        with trainer.workers.patient():
            trainer.saver.wait()
            newest = trainer.workers.of_first(trainer.saver.newest)
        return bool(newest == trainer.num_updates)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the weights. Random draws need nothing (`Trainer.train_step`)."""
        trainer, judgement, itr = self.trainer, self.trainer.judgement, self.trainer.itr
        return {
            "num_updates": trainer.num_updates,
            "numerics": trainer.numerics.state_dict(),
            "iterator": itr.state_dict() if itr is not None else {"epoch": trainer.epoch, "num_samples": 0},
            "metric": trainer.checkpoint_cfg.metric,
            "best": judgement.best,
            "num_validations_without_gain": judgement.num_validations_without_gain,
            "validated_at": judgement.validated_at,
            "validated_epoch": judgement.validated_epoch,
            "valid_metrics": judgement.valid_metrics,
            "train_wall": trainer.train_wall,
            "criterion": trainer.criterion.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "lr_scheduler": trainer.lr_scheduler.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in trainer.callbacks.items()},
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this run."""
        trainer, state = self.trainer, checkpoint.state()
        with trainer.sharding.opened(trainer.model, writes=True) as model:
            checkpoint.load_model(model)
        self.load_parts(checkpoint, state, RESETS)
        trainer.numerics.load_state_dict(state["numerics"])
        for name in ("validated_at", "validated_epoch", "valid_metrics"):
            setattr(trainer.judgement, name, state[name])
        trainer.saver.newest = trainer.num_updates

    def load_parts(self, checkpoint: Checkpoint, state: dict[str, Any], parts: Collection[str]) -> None:
        """Of `state`, that of a checkpoint of this run or another, the parts that are among RESETS."""
        trainer, judgement = self.trainer, self.trainer.judgement
        if "optimizer" in parts:
            own = trainer.sharding.scattered_state(state["optimizer"]["optimizer"], trainer.optimizer.parameters)
            trainer.optimizer.load_state_dict({**state["optimizer"], "optimizer": own})
            trainer.criterion.load_state_dict(state["criterion"])
            for name, callback in trainer.callbacks.items():
                callback.load_state_dict(state["callbacks"].get(name, {}))
                if "averaged.safetensors" in checkpoint.files:
                    callback.load_averaged(trainer.sharding.scattered(checkpoint.tensors("averaged.safetensors")))
        if "lr_scheduler" in parts:
            trainer.lr_scheduler.load_state_dict(state["lr_scheduler"])
            trainer.num_updates = state["num_updates"]
        if "meters" in parts:
            trainer.wall_before = state["train_wall"]
            if state["metric"] == trainer.checkpoint_cfg.metric:
                judgement.best = state["best"]
                judgement.num_validations_without_gain = state["num_validations_without_gain"]
        if "dataloader" in parts:
            trainer.position = state["iterator"]
            trainer.epoch = state["iterator"]["epoch"]
        trainer.lr_scheduler.step_update(trainer.num_updates)

    def roll_back(self) -> bool:
        """All but the place in the data becomes what the last checkpoint has. False: there is none."""
        trainer = self.trainer
        with trainer.workers.patient(), trainer.workers.first_goes_ahead():  # what is damaged is moved aside once
            trainer.saver.wait()
            newest = trainer.checkpoints.newest()
        if newest is None:
            return False
        epoch, wall = trainer.epoch, trainer.train_wall
        rollbacks = trainer.numerics.num_rollbacks, trainer.numerics.leapt_at
        self.load(newest)
        trainer.numerics.num_rollbacks, trainer.numerics.leapt_at = rollbacks
        trainer.epoch, trainer.position = epoch, None
        trainer.wall_before += wall - trainer.train_wall
        return True

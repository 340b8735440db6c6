"""A checkpoint of fairseq's in the middle of a run is imported, and the rest of the run is fairseq's."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from app.assembly import ASSETS, build, config_of
from app.check import KINDS
from app.fairseq.importing import plugins_of
from app.run_config import CONFIG, stored
from app.runtime.checkpoint import find
from app.trainer import Trainer
from tests.fairseq.imports import run_import, write_dictionary
from tests.golden.cases import Case, claimed, vocabulary
from tests.golden.test_training import GivenBatches, flag
from tests.golden.test_training import trainer as fresh_trainer

HALF = 10


class Silent:
    def log(self, *args: Any) -> None: ...


def update(trainer: Trainer, batches: list[Any], clip_norm: float) -> None:
    """One update by the definition: summed losses, gradients over all tokens, clipped."""
    trainer.model.train()
    losses = [trainer.criterion(trainer.model, batch) for batch in batches]
    for loss in losses:
        loss.value.backward()
    trainer.optimizer.average_and_clip(1 / sum(loss.sample_size for loss in losses), clip_norm)
    trainer.optimizer.step()
    trainer.num_updates += 1
    trainer.lr_scheduler.step_update(trainer.num_updates)


def run(trainer: Trainer, case: Case, updates: list[dict[str, Any]]) -> None:
    batches = GivenBatches(case).batches
    for each in updates:
        update(trainer, [batches[i] for i in each["batches"]], float(flag(case, "--clip-norm", "0")))


def checkpoint_of(trainer: Trainer, case: Case, path: Path, flatten: bool) -> Path:
    """What fairseq would have saved. Its modules stand in another order than ours here: names are what counts."""
    state = trainer.model.state_dict()
    names = sorted(state, reverse=True)
    parameters = trainer.model.state_dict(keep_vars=True)
    once = {id(parameters[name]): parameters[name] for name in names}  # shared ones where they first stand
    entries = [trainer.optimizer.inner.state[parameter] for parameter in once.values()]
    parts = [{key: entry[key] for key in ("exp_avg", "exp_avg_sq")} | {"step": HALF} for entry in entries]
    if flatten:
        rows = {key: torch.cat([part[key].flatten() for part in parts]) for key in ("exp_avg", "exp_avg_sq")}
        parts = [{"step": HALF, **rows}]
    group = {"lr": trainer.optimizer.lr, "betas": (0.9, 0.98), "eps": 1e-8, "params": list(range(len(parts)))}
    content = {
        "args": argparse.Namespace(**case.spec["model_config"]),
        "model": {"encoder.version": torch.tensor([3.0]), **{name: state[name].clone() for name in names}},
        "optimizer_history": [{"num_updates": HALF, "lr_scheduler_state": {"best": None}}],
        "extra_state": {"train_iterator": {"epoch": 3, "iterations_in_epoch": 0}, "best": 4.5},
        "last_optimizer_state": {"state": dict(enumerate(parts)), "param_groups": [group]},
    }
    torch.save(content, path)
    return path


def read_back(run_dir: Path) -> Trainer:
    """The imported run as `app.train` would go on with it."""
    train = config_of(stored(run_dir / CONFIG), run_dir)
    plugins = {kind: plugins_of(getattr(train, kind), kind) for kind in KINDS}
    task = plugins["task"](plugins["tokenizer"], train.batching)
    task.load(run_dir / ASSETS)
    nothing: Any = Silent()
    trainer = Trainer(train.trainer, train.checkpoint, train.seed, run_dir, build(train, plugins, task), nothing)
    trainer.state.load(find(run_dir, "loss", "min"))
    return trainer


@pytest.mark.parametrize("flatten", [False, True], ids=["fp32", "flat as in fp16"])
@pytest.mark.parametrize("case", claimed("training", "*"))
def test_the_rest_of_the_run_is_fairseqs(case: Any, flatten: bool, tmp_path: Path) -> None:
    first = fresh_trainer(case, tmp_path / "first", Silent())
    run(first, case, case.spec["updates"][:HALF])
    path = checkpoint_of(first, case, tmp_path / "checkpoint_last.pt", flatten)
    for side, words in (("src", first.task.source_vocabulary), ("tgt", first.task.target_vocabulary)):
        write_dictionary(tmp_path / "bin" / f"dict.{side}.txt", vocabulary(len(words)).pieces)
    run_import(path, tmp_path / "bin", tmp_path / "run")
    second = read_back(tmp_path / "run")
    assert (second.num_updates, second.epoch, second.judgement.best) == (HALF, 3, 4.5)
    assert second.optimizer.lr == pytest.approx(case.spec["updates"][HALF - 1]["lr_after"], rel=1e-9)
    run(second, case, case.spec["updates"][HALF:])
    assert second.optimizer.lr == pytest.approx(case.spec["updates"][-1]["lr_after"], rel=1e-9)
    final = case.under("final/param")
    for name, weight in second.model.state_dict().items():
        if not name.endswith("k_proj.bias"):  # its gradient is zero but for rounding, which Adam makes a step of
            torch.testing.assert_close(weight, final[name], rtol=1e-4, atol=1e-5)

"""Every optimizer trains a small model, and a run of it that is broken off and resumed equals an unbroken one."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from app.compose import CONF
from app.errors import ConfigError
from app.plugins import configure
from app.train import run
from tests.runs import TINY, configured, write_corpus

SINGLE = {
    "adadelta": 1.0,
    "adafactor": 5e-3,
    "adagrad": 0.02,
    "adamax": 5e-3,
    "lamb": 1e-2,
    "lion": 1e-3,
    "nag": 5e-3,
    "schedule_free_adamw": 5e-3,
    "sgd": 0.5,
}


def train(directory: Path, corpus: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The final weights."""
    common = [override for override in TINY if not override.startswith(("optimizer.", "lr_scheduler."))]
    given = [f"task.data={corpus}", f"cache_dir={corpus.parent / 'cache'}", f"run_dir={directory}"]
    run(*configured([*common, *given, "batching.max_tokens=300", "trainer.validate_interval=0", *overrides]))
    (weights,) = sorted((directory / "checkpoints").glob("update_*"))[-1:]
    return load_file(weights / "model.safetensors")


@pytest.mark.parametrize("optimizer", [*SINGLE, "muon"])
def test_a_resumed_run_is_the_unbroken_one(optimizer: str, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sizes=(60, 5, 5))
    if optimizer in SINGLE:
        options = [f"optimizer={optimizer}", f"optimizer.lr={SINGLE[optimizer]}", "lr_scheduler=fixed"]
    else:
        options = [f"optimizer={optimizer}", "lr_scheduler=pass_through"]
        options += [f"optimizer.groups.{group}.lr_scheduler.warmup_updates=4" for group in ("matrices", "rest")]
    whole = train(tmp_path / "whole", corpus, *options, "trainer.max_update=8")
    for until in (3, 8):
        broken = train(tmp_path / "broken", corpus, *options, f"trainer.max_update={until}")
    assert all(torch.equal(weight, broken[name]) for name, weight in whole.items())
    assert all(torch.isfinite(weight).all() for weight in whole.values())


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0], [-0.1, 0.9]])
@pytest.mark.parametrize("optimizer", ["adam", "adamax", "lamb", "lion"])
def test_betas_have_one_rule(optimizer: str, betas: list[float]) -> None:
    values = OmegaConf.load(CONF / "optimizer" / f"{optimizer}.yaml")
    with pytest.raises(ConfigError, match="must be two numbers, each 0 or more and less than 1"):
        configure({**values, "betas": betas}, torch.optim.Optimizer, "optimizer")

"""Schedule-free AdamW against the three sequences of its paper, and its average in a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.errors import ConfigError
from app.optimizers.schedule_free_adamw import ScheduleFreeAdamW, ScheduleFreeAdamWConfig
from app.schema import typed
from tests.runs import train

VALUES = {"lr": 0.1, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.02}


def gradient(y: torch.Tensor) -> torch.Tensor:
    return torch.tensor([1.0, -2.0, 0.5]) * y + 0.3


def test_the_points_are_those_of_the_paper() -> None:
    rates = [0.05, 0.1, 0.1, 0.08, 0.1]
    p = torch.nn.Parameter(torch.tensor([1.0, 2.0, -1.0]))
    optimizer = ScheduleFreeAdamW(typed(ScheduleFreeAdamWConfig, VALUES), [p])
    x = z = p.detach().double().clone()
    squared, weights, largest = torch.zeros(3, dtype=torch.float64), 0.0, 0.0
    for t, lr in enumerate(rates, start=1):
        y = 0.1 * z + 0.9 * x
        torch.testing.assert_close(p.detach().double(), y, rtol=1e-5, atol=1e-6)
        grad = gradient(y)
        squared = 0.95 * squared + 0.05 * grad**2
        z = z - lr * (grad / ((squared / (1 - 0.95**t)).sqrt() + 1e-8) + 0.02 * y)
        largest = max(largest, lr)
        weights += largest**2
        x = x + (z - x) * largest**2 / weights
        optimizer.param_groups[0]["lr"] = lr
        p.grad = gradient(p.detach())
        optimizer.step()
    torch.testing.assert_close(optimizer.average(p).double(), x, rtol=1e-5, atol=1e-6)


def test_a_first_beta_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="the first must be more than 0"):
        typed(ScheduleFreeAdamWConfig, {**VALUES, "betas": [0.0, 0.9]})


def test_the_average_is_validated_and_saved(tmp_path: Path) -> None:
    chosen = ["optimizer=schedule_free_adamw", "lr_scheduler=fixed", "lr_scheduler.warmup_updates=2"]
    length = ["trainer.max_update=6", "trainer.validate_interval=0", "trainer.validate_interval_updates=3"]
    run = train(tmp_path, *chosen, *length)
    (checkpoint,) = (run / "checkpoints").glob("update_00000006")
    y, x = (load_file(checkpoint / f"{name}.safetensors") for name in ("model", "averaged"))
    assert y.keys() == x.keys()
    assert any(not torch.equal(y[name], x[name]) for name in y)
    validated = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert measured(checkpoint) == pytest.approx(validated["loss"], rel=1e-6)


def measured(checkpoint: Path) -> float:
    """The validation loss of what other commands read: the averaged weights."""
    from app.evaluate import run
    from tests.runs import configured

    cache = checkpoint.parents[2] / "cache"
    given: list[Any] = [f"checkpoint={checkpoint}", f"cache_dir={cache}", "device=cpu", "num_threads=1"]
    return run(*configured(given, "evaluate"))


def test_the_callback_refuses_other_optimizers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Adam keeps no average"):
        train(tmp_path, "callbacks=schedule_free", "trainer.max_update=1")

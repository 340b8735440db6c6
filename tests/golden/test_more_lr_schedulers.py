"""The real fairseq's learning rates, for the schedules that few recipes use; and what is ours about them."""

import ast
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from app.interfaces import LRScheduler
from app.lr_schedulers.manual import Manual, ManualConfig
from app.lr_schedulers.reduce_lr_on_plateau import ReduceLROnPlateau, ReduceLROnPlateauConfig
from app.lr_schedulers.step import Step, StepConfig
from app.lr_schedulers.tri_stage import TriStage, TriStageConfig
from app.lr_schedulers.triangular import Triangular, TriangularConfig
from app.lr_schedulers.warmup_stable_decay import WarmupStableDecay, WarmupStableDecayConfig
from tests.golden.cases import Case, claimed


def optimizer(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def scheduler(case: Case) -> LRScheduler:
    given: dict[str, Any] = dict(case.spec["scheduler_config"])
    given.pop("_name", None)
    inner = optimizer(given.pop("lr")[0])
    if case.name.startswith("triangular"):
        given["lr_period_updates"] = int(given["lr_period_updates"])
        return Triangular(TriangularConfig(**given), inner)
    if case.name.startswith("tri_stage"):
        ratio = given["phase_ratio"]
        given["phase_ratio"] = list(ast.literal_eval(ratio) if isinstance(ratio, str) else ratio) if ratio else None
        given["max_update"] = int(given["max_update"])
        return TriStage(TriStageConfig(**given), inner)
    if case.name.startswith("manual"):
        return Manual(ManualConfig(**{name: ast.literal_eval(table) for name, table in given.items()}), inner)
    unset = given["warmup_init_lr"] < 0  # fairseq's -1
    if case.name.startswith("step"):
        given["lr_decay_period"] = int(given.pop("lr_deacy_period"))
        given["warmup_init_lr"] = given["min_lr"] if unset else given["warmup_init_lr"]
        return Step(StepConfig(**given), inner)
    given["mode"] = "max" if given.pop("maximize_best_checkpoint_metric") else "min"
    given["warmup_init_lr"] = 0.0 if unset else given["warmup_init_lr"]
    return ReduceLROnPlateau(ReduceLROnPlateauConfig(**given), inner)


@pytest.mark.parametrize(
    "case", claimed("lr_schedulers", "triangular", "tri_stage", "step", "manual", "reduce_lr_on_plateau")
)
def test_rates(case: Any) -> None:
    ours = scheduler(case)
    assert not list(ours.cfg.check())

    def lr() -> float:
        return float(ours.optimizer.param_groups[0]["lr"])

    assert lr() == pytest.approx(case.spec["lr_after_step_update_0"], rel=1e-9)
    expected = {n: rate for n, rate in case.spec["lr_after_update"] if n}
    ends = {end["at_update"]: end for end in case.spec["epoch_ends"]}
    for n in range(1, max(expected) + 1):
        ours.step_update(n)
        if n in expected:
            assert lr() == pytest.approx(expected[n], rel=1e-9, abs=1e-15), n
        if n in ends:
            ours.step(ends[n]["finished_epoch"], ends[n]["val_loss"])
            jumps = isinstance(ours, Manual) and newest_is_an_update(ours, n)
            if not jumps:  # fairseq's fall back to epoch2lr for one update is a fault, not repeated
                assert lr() == pytest.approx(ends[n]["lr_after_step_begin_next_epoch"], rel=1e-9), n


def newest_is_an_update(manual: Manual, num_updates: int) -> bool:
    return bool(manual.by_epoch) and any(key <= num_updates for key in manual.by_update)


def plateau() -> ReduceLROnPlateau:
    return ReduceLROnPlateau(ReduceLROnPlateauConfig(0.5, 1e-4, 2, 0, 0.0, "min"), optimizer(1.0))


def manual() -> Manual:
    return Manual(ManualConfig({"2-3": 0.5, "5,7": 0.1}, {40: 0.01}), optimizer(1.0))


@pytest.mark.parametrize("make", [plateau, manual])
@pytest.mark.parametrize("epochs", range(1, 8))
def test_a_restored_schedule_goes_on_where_it_was(make: Callable[[], LRScheduler], epochs: int) -> None:
    def drive(ours: LRScheduler, start: int, end: int) -> list[float]:
        rates = []
        for epoch in range(start, end):
            for n in range(10 * epoch - 9, 10 * epoch + 1):
                ours.step_update(n)
                rates.append(float(ours.optimizer.param_groups[0]["lr"]))
            ours.step(epoch, 1.0)
        return rates

    unbroken, first, second = make(), make(), make()
    drive(unbroken, 1, epochs + 1)
    drive(first, 1, epochs + 1)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert drive(second, epochs + 1, 10) == drive(unbroken, epochs + 1, 10)


def test_an_epoch_that_was_not_validated_is_not_judged() -> None:
    ours = plateau()
    for epoch in range(1, 10):
        ours.step(epoch, 1.0 if epoch == 1 else None)
    assert ours.optimizer.param_groups[0]["lr"] == 1.0


def test_warmup_stable_decay() -> None:
    linear = WarmupStableDecay(WarmupStableDecayConfig(10, 20, 100, 0.1, "linear"), optimizer(1.0))
    rates = [linear.lr_at(n) for n in (0, 5, 10, 80, 90, 100, 120)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.55, 0.1, 0.1])
    rooted = WarmupStableDecay(WarmupStableDecayConfig(0, 16, 16, 0.0, "1-sqrt"), optimizer(1.0))
    assert [rooted.lr_at(n) for n in (0, 1, 4, 9, 16)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_tri_stage_without_decay_drops_to_its_last_rate() -> None:
    ours = TriStage(TriStageConfig(2, 3, 0, None, 0.0, 0.1, 0), optimizer(1.0))
    assert [ours.lr_at(n) for n in range(7)] == pytest.approx([0, 0.5, 1, 1, 1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("cfg", "fault"),
    [
        (TriStageConfig(0, 0, 0, None, 0.0, 0.1, 0), "at least one phase"),
        (TriStageConfig(0, 0, 0, [0.5, 0.6, 0.1], 0.0, 0.1, 10), "add up to 1"),
        (TriStageConfig(0, 0, 0, [0.5, 0.4, 0.1], 0.0, 0.1, 0), "set max_update"),
        (ManualConfig({"3-1": 0.1}, {}), "a key must be a number"),
        (ManualConfig({}, {"one": 0.1}), "a key must be a number"),
        (WarmupStableDecayConfig(60, 60, 100, 0.0, "linear"), "max_update=100"),
        (ReduceLROnPlateauConfig(1.5, 1e-4, 0, 0, 0.0, "min"), "lr_shrink=1.5"),
    ],
)
def test_faults_are_told(cfg: Any, fault: str) -> None:
    assert fault in " ".join(cfg.check())

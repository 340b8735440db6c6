"""The real fairseq's learning rate after every update, driven as its trainer drives it."""

from typing import Any

import pytest
import torch

from app.interfaces import LRScheduler
from app.lr_schedulers.cosine import Cosine, CosineConfig
from app.lr_schedulers.fixed import Fixed, FixedConfig
from app.lr_schedulers.inverse_sqrt import InverseSquareRoot, InverseSquareRootConfig
from app.lr_schedulers.polynomial_decay import PolynomialDecay, PolynomialDecayConfig
from tests.golden.cases import Case, claimed


def scheduler(case: Case) -> LRScheduler:
    given: dict[str, Any] = dict(case.spec["scheduler_config"])
    name, rates = given.pop("_name"), given.pop("lr")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rates[0])
    unset = given.get("warmup_init_lr", 0.0) < 0  # fairseq's -1
    if name == "inverse_sqrt":
        if unset:
            given["warmup_init_lr"] = 0.0 if given["warmup_updates"] > 0 else rates[0]
        return InverseSquareRoot(InverseSquareRootConfig(**given), optimizer)
    if name == "cosine":
        if unset:
            given["warmup_init_lr"] = given["min_lr"]
        given["lr_period_updates"] = max(int(given["lr_period_updates"]), 0)
        return Cosine(CosineConfig(**given), optimizer)
    if name == "fixed":
        return Fixed(FixedConfig(rates, **given), optimizer)
    assert given.pop("force_anneal") is None
    given["total_num_update"] = int(given["total_num_update"])
    return PolynomialDecay(PolynomialDecayConfig(**given), optimizer)


@pytest.mark.parametrize("case", claimed("lr_schedulers", "inverse_sqrt*", "fixed*", "cosine*", "polynomial_decay*"))
def test_rates(case: Any) -> None:
    ours = scheduler(case)
    assert not list(ours.cfg.check())

    def lr() -> float:
        return float(ours.optimizer.param_groups[0]["lr"])

    assert lr() == pytest.approx(case.spec["lr_after_step_update_0"], rel=1e-9)
    expected = {n: rate for n, rate in case.spec["lr_after_update"] if n}
    ends = {end["at_update"]: end for end in case.spec["epoch_ends"]}
    per_epoch = case.spec["updates_per_epoch"]
    for n in range(1, max(expected) + 1):
        ours.step_update(n)
        if n in expected:
            assert lr() == pytest.approx(expected[n], rel=1e-9, abs=1e-15), n
        if n % per_epoch == 0:
            before = lr()
            ours.step(n // per_epoch, ends[n]["val_loss"] if n in ends else None)
            if isinstance(ours, PolynomialDecay):
                assert lr() == before  # fairseq's jump back to the peak rate is a fault, not repeated
            elif n in ends:
                assert lr() == pytest.approx(ends[n]["lr_after_step_begin_next_epoch"], rel=1e-9), n


def test_inverse_sqrt_without_warmup_starts_at_the_full_rate() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    ours = InverseSquareRoot(InverseSquareRootConfig(0, 0.0), optimizer)
    assert [ours.lr_at(n) for n in (0, 1, 4)] == [0.5, 0.5, 0.25]


def test_a_restored_fixed_schedule_goes_on_where_it_was() -> None:
    def make() -> Fixed:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return Fixed(FixedConfig([1.0, 0.5], 4, 0.5, 10), optimizer)

    first, second = make(), make()
    for n in range(1, 6):
        first.step_update(n)
    first.step(4, None)
    second.load_state_dict(first.state_dict())
    assert second.optimizer.param_groups[0]["lr"] == first.optimizer.param_groups[0]["lr"]
    assert second.lr_at(100) == first.lr_at(100)

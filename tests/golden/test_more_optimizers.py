"""The real fairseq's parameters after each of twelve steps, for the optimizers beside Adam; ours against the papers."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.optimizers.adafactor import Adafactor, AdafactorConfig, rms
from app.optimizers.adamax import Adamax, AdamaxConfig
from app.optimizers.lamb import Lamb, LambConfig
from app.optimizers.lion import Lion, LionConfig
from app.optimizers.nag import NAG, NAGConfig
from tests.golden.cases import Case, claimed

DEFAULTS: dict[str, Any] = {  # what fairseq's constructors take where a case does not say it
    "eps": [1e-30, 1e-3],
    "clip_threshold": 1.0,
    "decay_rate": -0.8,
    "beta1": None,
    "weight_decay": 0.0,
    "scale_parameter": True,
    "relative_step": True,
    "warmup_init": False,
}


def optimizer(case: Case, groups: Iterable[Any]) -> torch.optim.Optimizer:
    given = dict(case.spec["optimizer_config"])
    if case.name.startswith("adamax"):
        return Adamax(AdamaxConfig(**given), groups)
    if case.name.startswith("nag"):
        return NAG(NAGConfig(**given), groups)
    if case.name.startswith("adafactor"):
        given = DEFAULTS | given
        given["lr"] = given["lr"] or 1.0  # not read with relative_step
        cfg = AdafactorConfig(**{field.name: given[field.name] for field in fields(AdafactorConfig)})
        assert not list(cfg.check())
        return Adafactor(cfg, groups)
    kind = {"adadelta": torch.optim.Adadelta, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}
    return kind[case.name.partition("_")[0]](groups, **given)


def parameters(case: Case) -> dict[str, nn.Parameter]:
    named = case.under("before")
    return {name: nn.Parameter(named[name].clone()) for name in case.spec["order_of_parameters"]}


def steps(case: Case, named: dict[str, nn.Parameter]) -> Iterator[dict[str, float]]:
    """Before each step its gradients are set and its learning rates yielded; after it the parameters are compared."""
    count = len({name.split("/")[0] for name in case.under("grad")})
    for step, rates in enumerate(case.spec.get("lr_used") or [{}] * count, start=1):
        for name, p in named.items():
            p.grad = case.tensors[f"grad/{step:02d}/{name}"].clone()
        yield rates
        for name, p in named.items():
            torch.testing.assert_close(p.data, case.tensors[f"after/{step:02d}/{name}"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "case", claimed("optimizers", "adadelta", "adagrad", "adamax*", "nag", "sgd*", "adafactor*", "!*_one_group_as_is")
)
def test_twelve_steps(case: Any) -> None:
    named = parameters(case)
    alone = "parameter_groups" in case.spec  # each parameter is a group of its own
    ours = optimizer(case, [{"params": [p]} for p in named.values()] if alone else list(named.values()))
    for rates in steps(case, named):
        for number, lr in rates.items():
            ours.param_groups[int(number)]["lr"] = lr
        ours.step()
    for name, p in named.items():
        for key, theirs in case.under(f"state/{name}").items():
            if key in ours.state[p] and isinstance(ours.state[p][key], Tensor) and key != "momentum_buffer":
                torch.testing.assert_close(ours.state[p][key], theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("case", claimed("optimizers", "adafactor*_one_group_as_is"))
def test_adafactor_differs_from_fairseq_by_its_fault_alone(case: Any) -> None:
    """With rates that grow from parameter to parameter as the fault makes them, ours takes fairseq's steps."""
    named = parameters(case)
    ours = optimizer(case, [{"params": [p]} for p in named.values()])
    smallest = case.spec["optimizer_config"]["eps"][1]
    for rates in steps(case, named):
        lr = rates["0"]
        for group, p in zip(ours.param_groups, named.values(), strict=True):
            group["lr"] = lr
            lr *= max(smallest, float(rms(p.detach())))
        ours.step()


def one_step(ours: torch.optim.Optimizer, p: nn.Parameter, grad: Tensor) -> Tensor:
    """How far the parameter moves."""
    before = p.detach().clone()
    p.grad = grad
    ours.step()
    return p.detach() - before


def test_lamb_moves_a_parameter_by_a_share_of_its_size() -> None:
    torch.manual_seed(1)
    for scale in (1.0, 10.0):
        p, grad = nn.Parameter(scale * torch.randn(4, 5)), torch.randn(4, 5)
        size = float(p.detach().norm())
        moved = one_step(Lamb(LambConfig(0.01, [0.9, 0.999], 1e-12, 0.0), [p]), p, grad)
        assert float(moved.norm()) == pytest.approx(0.01 * size, rel=1e-5)
        torch.testing.assert_close(moved, -0.01 * size * grad.sign() / 20**0.5)  # Adam's first direction is the sign


def test_lamb_takes_adams_step_where_a_parameter_is_zero() -> None:
    p = nn.Parameter(torch.zeros(3))
    moved = one_step(Lamb(LambConfig(0.01, [0.9, 0.999], 1e-12, 0.1), [p]), p, torch.tensor([1.0, -2.0, 3.0]))
    torch.testing.assert_close(moved, torch.tensor([-0.01, 0.01, -0.01]))


def test_lion_against_its_definition() -> None:
    torch.manual_seed(2)
    p, lr, decay = nn.Parameter(torch.randn(6)), 0.01, 0.3
    ours = Lion(LionConfig(lr, [0.9, 0.99], decay), [p])
    x, m = p.detach().clone(), torch.zeros(6)
    for _ in range(5):
        grad = torch.randn(6)
        x = x - lr * ((0.9 * m + 0.1 * grad).sign() + decay * x)
        m = 0.99 * m + 0.01 * grad
        one_step(ours, p, grad)
        torch.testing.assert_close(p.detach(), x)

"""The real fairseq's parameters after each of twelve steps, and its clipping."""

from typing import Any

import pytest
import torch

from app.optimizers.adam import Adam, AdamConfig
from app.runtime.precision import PreciseOptimizer, Precision, PrecisionConfig
from tests.golden.cases import Case, claimed


def plain(optimizer: torch.optim.Optimizer) -> PreciseOptimizer:
    return PreciseOptimizer(optimizer, Precision(PrecisionConfig("fp32", 1.0, 1), torch.device("cpu")))


def parameters(case: Case, prefix: str) -> dict[str, torch.nn.Parameter]:
    named = case.under(prefix)
    return {name: torch.nn.Parameter(named[name].clone()) for name in case.spec["order_of_parameters"]}


@pytest.mark.parametrize("case", claimed("optimizers", "adam", "adam_*"))
def test_adam(case: Any) -> None:
    named = parameters(case, "before")
    config = case.spec["optimizer_config"]
    keys = ("lr", "betas", "eps", "weight_decay")
    optimizer = Adam(AdamConfig(**{key: config[key] for key in keys}), named.values())
    for step, rates in enumerate(case.spec["lr_used"], start=1):
        (optimizer.param_groups[0]["lr"],) = rates.values()
        for name, parameter in named.items():
            parameter.grad = case.tensors[f"grad/{step:02d}/{name}"].clone()
        optimizer.step()
        for name, parameter in named.items():
            torch.testing.assert_close(parameter.data, case.tensors[f"after/{step:02d}/{name}"], rtol=1e-6, atol=1e-7)
    for name, parameter in named.items():
        for key in ("exp_avg", "exp_avg_sq"):
            theirs = case.tensors[f"state/{name}/{key}"]
            torch.testing.assert_close(optimizer.state[parameter][key], theirs, rtol=1e-6, atol=1e-8)
    assert optimizer.param_groups[0]["eps"] == config["eps"]


@pytest.mark.parametrize("case", claimed("optimizers", "clip_grad_norm"))
def test_average_and_clip(case: Any) -> None:
    for result in case.spec["results"]:
        named = {name: torch.nn.Parameter(torch.zeros_like(grad)) for name, grad in case.under("grad").items()}
        for name, parameter in named.items():
            parameter.grad = case.tensors[f"grad/{name}"].clone()
        optimizer = plain(torch.optim.SGD(named.values(), lr=1.0))
        norm = optimizer.average_and_clip(case.spec["multiply_grads_before"], result["max_norm"])
        assert float(norm) == pytest.approx(result["returned_norm"], rel=1e-6)
        for name, parameter in named.items():
            theirs = case.tensors[f"clipped/{result['max_norm']}/{name}"]
            torch.testing.assert_close(parameter.grad, theirs, rtol=1e-6, atol=1e-8)

"""Dropout from 16 random bits an element is dropout."""

import pytest
import torch

from app.modules.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("size", [1_000_003, 1_000_000])
def test_share_and_expectation(p: float, size: int) -> None:
    torch.manual_seed(1)
    dropped = Dropout(p)(torch.ones(size))
    kept = dropped[dropped != 0]
    assert kept.numel() / size == pytest.approx(1 - p, abs=5 * (p * (1 - p) / size) ** 0.5 + 1 / 65536)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01 / (1 - p))
    assert kept.unique().numel() == 1


def test_neighbours_are_independent() -> None:
    """Four elements share one 64-bit draw; none of its bits is stuck."""
    torch.manual_seed(2)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).float().view(-1, 4)
    covariance = torch.cov(kept.t())
    assert torch.allclose(covariance, torch.eye(4) / 4, atol=0.005)


def test_gradient_flows_where_values_do() -> None:
    x = torch.randn(7, 11, requires_grad=True)
    dropped = Dropout(0.3)(x)
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, dropped != 0)
    assert torch.allclose(dropped, x * x.grad)


def test_seeded_draws_repeat() -> None:
    dropout, x = Dropout(0.5), torch.ones(100)
    torch.manual_seed(3)
    first = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)


def test_evaluation_and_zero_change_nothing() -> None:
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_what_is_kept_is_scaled_in_any_format(dtype: torch.dtype) -> None:
    x = torch.randn(40, 30, dtype=dtype).t().requires_grad_()  # not in one piece
    dropped = Dropout(0.5)(x)
    dropped.sum().backward()
    assert torch.equal(dropped, torch.where(dropped == 0, 0, 2 * x).to(dtype))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(dropped == 0, 0, 2).to(dtype))

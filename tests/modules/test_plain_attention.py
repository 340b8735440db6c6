"""Attention with a backward pass of its own equals torch's."""

import pytest
import torch
from torch.nn import functional as F

from app.modules.attention import MultiheadAttention
from app.modules.plain_attention import attend


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    """Queries, keys and values of 3 sentences, 2 heads and 4 or 6 positions, seen through transposed views."""
    torch.manual_seed(1)
    return [torch.randn(3, length, 2, 5, dtype=dtype).transpose(1, 2).requires_grad_() for length in (4, 6, 6)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_those_of_torchs(causal: bool, masked: bool) -> None:
    lengths = torch.tensor([6, 3, 4])
    mask = (torch.arange(6) < lengths[:, None])[:, None, None] if masked else None
    seen = torch.ones(4, 6, dtype=torch.bool).tril(2) if causal else torch.ones(4, 6, dtype=torch.bool)
    ours, theirs = inputs(torch.float32), inputs(torch.float32)
    expected = F.scaled_dot_product_attention(*theirs, seen if mask is None else seen & mask)
    found = attend(*ours, mask, causal)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_bf16_stays_near_fp32() -> None:
    exact, rough = inputs(torch.float32), inputs(torch.float32)
    attend(*exact, None, False).square().sum().backward()
    attend(*(each.bfloat16() for each in rough), None, False).float().square().sum().backward()
    for a, b in zip(exact, rough, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0.05, atol=0.05)


def test_training_in_bf16_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr("app.modules.attention.attend", lambda *args: taken.append(args) or attend(*args))
    attention, x = MultiheadAttention(8, 2, 0.0).train(), torch.randn(2, 3, 8)
    attention(x)
    assert not taken
    with torch.autocast("cpu", torch.bfloat16):
        attention(x).sum().backward()
    assert len(taken) == 1

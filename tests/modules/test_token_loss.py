"""The fused loss equals the obvious one: same sums, same gradients, whatever the chunk."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from app.modules import token_loss as module
from app.modules.token_loss import projected_loss, token_loss

PAD = 1


class Projecting(nn.Module):
    def __init__(self, dim: int, words: int, bias: bool, fused: bool):
        super().__init__()
        torch.manual_seed(1)
        self.linear, self.fused = nn.Linear(dim, words, bias=bias), fused

    @property
    def output_projection(self) -> nn.Linear | None:
        return self.linear if self.fused else None

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear(features)


def results(fused: bool, bias: bool, smoothing: float, z_loss: float = 0.0) -> tuple[list[float], list[torch.Tensor]]:
    model = Projecting(8, 50, bias, fused)
    torch.manual_seed(2)
    features = torch.randn(5, 7, 8, requires_grad=True)
    target = torch.randint(0, 50, (5, 7))
    target[2:, 4:] = PAD
    out = token_loss(model, features, target, PAD, smoothing, True, z_loss)
    (3 * out.loss).backward()
    grads = [features.grad, *(p.grad for p in model.parameters())]
    return [out.loss.item(), out.nll.item(), out.correct.item(), out.num_tokens], grads


@pytest.mark.parametrize(("chunk", "block"), [(1, 2**20), (2**22, 2**20), (2**22, 150)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.9, 0.0), (0.1, 0.3)])
def test_fused_equals_unfused(
    chunk: int, block: int, bias: bool, smoothing: float, z_loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(module, "BLOCK", block)
    ours, our_grads = results(True, bias, smoothing, z_loss)
    plain, plain_grads = results(False, bias, smoothing, z_loss)
    assert ours == pytest.approx(plain, rel=1e-5)
    for a, b in zip(our_grads, plain_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_without_smoothing_it_is_torchs_cross_entropy() -> None:
    features, weight, target = torch.randn(30, 8), torch.randn(50, 8), torch.randint(0, 50, (30,))
    loss, nll, correct = projected_loss(features, weight, None, target, 0.0, guess=True)
    scores = features @ weight.t()
    assert float(loss) == pytest.approx(float(F.cross_entropy(scores, target, reduction="sum")), rel=1e-5)
    assert float(nll) == pytest.approx(float(loss))
    assert int(correct) == int((scores.argmax(-1) == target).sum())


def test_bf16_stays_near_fp32() -> None:
    features, weight, target = torch.randn(300, 64), torch.randn(50, 64) / 8, torch.randint(0, 50, (300,))
    exact, *_ = projected_loss(features, weight, None, target, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        rough, *_ = projected_loss(features, weight, None, target, 0.1)
    assert float(rough) == pytest.approx(float(exact), rel=5e-3)


def test_z_loss_is_the_squared_logarithm_of_the_normaliser() -> None:
    model = Projecting(8, 50, True, True)
    features, target = torch.randn(2, 3, 8), torch.full((2, 3), 7)
    plain, with_z = (token_loss(model, features, target, PAD, z_loss=weight).loss for weight in (0.0, 0.5))
    log_z = model.linear(features).double().exp().sum(-1).log()
    assert (with_z - plain).item() == pytest.approx(0.5 * log_z.square().sum().item(), rel=1e-4)


def test_no_position_has_no_gradient() -> None:
    features, weight = torch.randn(0, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    loss, *_ = projected_loss(features, weight, None, torch.empty(0, dtype=torch.long), 0.1)
    (2 * loss).backward()
    assert weight.grad is not None
    assert not weight.grad.any()

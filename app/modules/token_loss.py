"""Label-smoothed cross-entropy of the next token; where scores are a linear projection, without ever holding them all.

For N positions and V words the scores would be N x V numbers, read and written several times in fp32. Here they are
made for a chunk of positions at a time, and turned into gradients of features and weights while they are at hand.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

CHUNK = 2**24  # scores held at a time: 32 MiB in bf16
BLOCK = 2**19  # of them, that each thread of a CPU turns into gradients at a time: 2 MiB in fp32


class Projects(Protocol):
    """What of a model the loss of its tokens needs (`app.interfaces.Model`)."""

    @property
    def output_projection(self) -> nn.Linear | None: ...

    def project(self, features: Tensor) -> Tensor: ...


class TokenLoss(NamedTuple):
    """Sums over the target tokens; only `loss` has a gradient."""

    loss: Tensor
    nll: Tensor
    correct: Tensor  # tokens whose best guess is the target
    num_tokens: int


def token_loss(
    model: Projects,
    features: Tensor,
    target: Tensor,
    pad: int,
    label_smoothing: float = 0.0,
    guess: bool = False,
    z_loss: float = 0.0,
) -> TokenLoss:
    """features [B, T, D], target [B, T] -> the label-smoothed cross-entropy of the targets that are not padding.

    `correct` is counted only where `guess` asks for it, because finding the best word of each position takes time.
    `z_loss` times the square of the logarithm of the softmax's normaliser is added at each target, which keeps it near
    1 (Chowdhery et al., 2022, sec. 5).
    """
    real = target.flatten().ne(pad).nonzero().squeeze(1)
    kept, gold = features.flatten(0, 1).index_select(0, real), target.flatten().index_select(0, real)
    linear = model.output_projection
    if linear is not None:
        return TokenLoss(
            *projected_loss(kept, linear.weight, linear.bias, gold, label_smoothing, guess, z_loss), gold.numel()
        )
    scores = model.project(kept)  # [N, V]
    sums = lprobs_loss(scores.log_softmax(dim=-1, dtype=torch.float32), gold, label_smoothing, guess)
    if not z_loss:
        return sums
    return sums._replace(loss=sums.loss + z_loss * scores.float().logsumexp(dim=-1).square().sum())


def lprobs_loss(lprobs: Tensor, gold: Tensor, label_smoothing: float = 0.0, guess: bool = False) -> TokenLoss:
    """The same from log-probabilities [N, V] of N positions whose targets are `gold` [N]."""
    nll = -lprobs.gather(1, gold[:, None]).sum()
    spread = label_smoothing / (lprobs.size(-1) - 1)
    loss = (1.0 - label_smoothing - spread) * nll - spread * lprobs.sum()
    correct = (lprobs.argmax(-1) == gold).sum() if guess else torch.zeros(())
    return TokenLoss(loss, nll.detach(), correct, gold.numel())


def token_logs(loss: Tensor, nll: Tensor, num_tokens: int, num_sentences: int) -> dict[str, Tensor | float]:
    """What every criterion of tokens logs; sums, as `Loss.logs` wants them."""
    return {"loss": loss.detach(), "nll_loss": nll.detach(), "ntokens": num_tokens, "nsentences": num_sentences}


def projected_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    label_smoothing: float,
    guess: bool = False,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """features [N, D], weight [V, D], bias [V] or None, target [N] -> summed loss, summed nll, right guesses; scalars.

    With e = label_smoothing / (V - 1), the loss of a position is (1 - label_smoothing - e) * nll - e * sum(log p), as
    in fairseq; its gradient by the scores is p - e, less (1 - label_smoothing - e) at the target. `z_loss` adds
    z_loss * log(Z) ** 2, and 2 * z_loss * log(Z) * p to the gradient, Z the softmax's normaliser. Only the loss has a
    gradient. Products run in the dtype of autocast where that is on; softmax and sums in fp32.
    """
    kind = features.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
    arguments = (features, weight, bias, target, label_smoothing, guess, z_loss, dtype)
    out: tuple[Tensor, Tensor, Tensor] = _ProjectedLoss.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


class _ProjectedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            return _ProjectedLoss._forward(ctx, features, *arguments)

    @staticmethod
    def _forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        smoothing: float,
        guess: bool,
        z_loss: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        words = weight.size(0)
        spread = smoothing / (words - 1)
        on_target = 1.0 - smoothing - spread
        need_features, need_weight, need_bias = (ctx.needs_input_grad[i] for i in range(3))
        x, w = features.to(dtype), weight.to(dtype)
        b = None if bias is None else bias.to(dtype)
        d_features = torch.empty_like(x, dtype=torch.float32) if need_features else None
        # What smoothing adds is of rank one: the same `spread` is taken from every word's gradient.
        x_sum, w_sum = features.sum(0, dtype=torch.float32), weight.sum(0, dtype=torch.float32)
        d_weight = (-spread * x_sum).expand(words, -1) if need_weight else None
        d_bias = torch.zeros(words, dtype=torch.float32, device=x.device) if need_bias else None
        sums = (torch.zeros((), dtype=torch.float64, device=x.device) for _ in range(5))
        nll_sum, score_sum, lse_sum, z_sum, correct = sums
        rows = max(64, CHUNK // words)
        for start in range(0, x.size(0), rows):
            part, gold = x[start : start + rows], target[start : start + rows, None]
            scores = torch.nn.functional.linear(part, w, b)  # [n, V]
            if guess:
                correct += (scores.argmax(-1, keepdim=True) == gold).sum()
            gold_scores = scores.gather(1, gold).float()
            lse = _to_gradients(scores, gold, on_target, z_loss)
            nll_sum += (lse - gold_scores).sum(dtype=torch.float64)
            lse_sum += lse.sum(dtype=torch.float64)
            z_sum += lse.square().sum(dtype=torch.float64)
            if d_bias is not None:
                d_bias += scores.sum(0, dtype=torch.float32)
            if d_features is not None:
                d_features[start : start + rows] = scores @ w
            if d_weight is not None:
                d_weight = d_weight + scores.t() @ part
        score_sum += (x_sum @ w_sum).double() + (0.0 if bias is None else x.size(0) * bias.sum())
        if d_features is not None:
            d_features -= spread * w_sum
        if d_bias is not None:
            d_bias -= spread * x.size(0)
        ctx.save_for_backward(d_features, None if d_weight is None else d_weight.contiguous(), d_bias)
        ctx.dtypes = (features.dtype, weight.dtype, None if bias is None else bias.dtype)
        loss = on_target * nll_sum + spread * (words * lse_sum - score_sum) + z_loss * z_sum
        outputs = loss.float(), nll_sum.float(), correct.float()
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale = grads[0]
        is_one = scale.device.type == "cpu" and scale.item() == 1  # asking a GPU would wait for it
        scaled = (g if g is None or is_one else g.mul_(scale) for g in ctx.saved_tensors)
        return (*(None if g is None else g.to(dtype) for g, dtype in zip(scaled, ctx.dtypes, strict=True)), *[None] * 5)


def _to_gradients(scores: Tensor, gold: Tensor, on_target: float, z_loss: float) -> Tensor:
    """Scores [n, V] become their gradients, less what smoothing adds. Returns log(Z) [n, 1], Z the normaliser, in fp32.

    It takes a few rows at a time, which stay in the cache. Z is found by the best word, whose probability is never too
    small for it: no second pass of exponentials.
    """
    rows = len(scores)
    if scores.device.type == "cpu":
        rows = max(1, BLOCK * torch.get_num_threads() // scores.size(1))
    log_z = torch.empty(len(scores), 1, dtype=torch.float32, device=scores.device)
    parts = (torch.split(each, rows) for each in (scores, gold, log_z))
    for own, own_gold, lse in zip(*parts, strict=True):
        p = own.float()
        best = p.amax(dim=-1, keepdim=True)
        torch.softmax(p, dim=-1, out=p)
        torch.sub(best, p.amax(dim=-1, keepdim=True).log(), out=lse)
        if z_loss:
            p.mul_(1 + 2 * z_loss * lse)
        p.scatter_add_(1, own_gold, torch.full_like(lse, -on_target))
        own.copy_(p)
    return log_z

"""A training step as fairseq writes it, to measure ours against: each lever taken out by patching a class.

What stays is what both have: one product for queries, keys and values (fairseq's three are a little slower).
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from app.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropy
from app.data.batch import Batch
from app.interfaces import Loss, Model
from app.modules import attention
from app.modules.attention import MultiheadAttention
from app.modules.dropout import Dropout
from app.modules.token_loss import token_logs


def torch_dropout(self: Dropout, x: Tensor) -> Tensor:
    """A random number an element."""
    return F.dropout(x, self.p, self.training)


def plain_attention(
    self: MultiheadAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, cached: bool = False
) -> Tensor:
    """All weights at once, with the softmax in fp32."""
    weights = self.dropout(attention._weights(q, k, mask, causal))
    return torch.matmul(weights.to(v.dtype), v)


def whole_loss(self: LabelSmoothedCrossEntropy, model: Model, batch: Batch) -> Loss:
    """The scores of all words at all positions, padding included, in fp32; padding is taken from the sum."""
    lprobs = F.log_softmax(model.project(model(batch)).float(), dim=-1)  # [B, T, V]
    lprobs, target = lprobs.flatten(0, 1), batch.target.reshape(-1, 1)
    is_padding = target.eq(self.pad)
    nll = -lprobs.gather(-1, target).masked_fill(is_padding, 0.0).sum()
    smooth = -lprobs.sum(-1, keepdim=True).masked_fill(is_padding, 0.0).sum()
    spread = self.cfg.label_smoothing / (lprobs.size(-1) - 1)
    loss = (1.0 - self.cfg.label_smoothing - spread) * nll + spread * smooth
    return Loss(loss, batch.num_tokens, token_logs(loss, nll.detach(), batch.num_tokens, len(batch)))


PATCHES: dict[str, tuple[Any, str, Any]] = {
    "dropout": (Dropout, "forward", torch_dropout),
    "attention": (MultiheadAttention, "_attend", plain_attention),
    "loss": (LabelSmoothedCrossEntropy, "forward", whole_loss),
}


@contextmanager
def without(levers: Collection[str]) -> Iterator[None]:
    """Inside, these keys of PATCHES are as fairseq has them."""
    with ExitStack() as stack:
        for name in levers:
            stack.enter_context(patch.object(*PATCHES[name]))
        yield


def plain_adam(
    parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer:
    """Adam with a loop over the parameters."""
    return torch.optim.Adam(parameters, lr, betas, eps, foreach=False)

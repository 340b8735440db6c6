"""Forced decoding: what models think of given outputs."""

import math

import torch
from torch import Tensor

from app.interfaces import Model
from app.search import Hypothesis


@torch.inference_mode()
def score_reference(
    models: list[Model], src_tokens: Tensor, src_lengths: Tensor, target: Tensor, bos: int, pad: int
) -> list[Hypothesis]:
    """The given outputs with their scores, means over tokens, under the mean of the models' distributions.

    `target` [B, T] is padded at the end and has eos in each row; `bos` is the decoder's first input.
    """
    inputs = torch.cat([torch.full_like(target[:, :1], bos), target[:, :-1]], dim=1)
    each = []
    for model in models:
        features = model.decode(inputs, model.encode(src_tokens, src_lengths))
        log_probs = model.project(features).log_softmax(dim=-1, dtype=torch.float32)
        each.append(log_probs.gather(2, target.unsqueeze(2)).squeeze(2))
    scores = torch.stack(each).logsumexp(dim=0) - math.log(len(each))  # [B, T]
    hypotheses = []
    for row, positional in zip(target.cpu(), scores.cpu()):
        real = row != pad
        hypotheses.append(Hypothesis(row[real], positional[real].mean().item(), positional[real]))
    return hypotheses

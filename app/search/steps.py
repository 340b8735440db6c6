"""What a search does to one step's scores: N rows of log-probabilities over a vocabulary of V.

Functions that ban write -inf into their first argument and return nothing; the others change nothing.
"""

import torch
from torch import Tensor

NEVER = float("-inf")
BLOCK = 32  # a power of two


def ban_repeated_ngrams(log_probs: Tensor, tokens: Tensor, size: int, pad: int, eos: int) -> None:
    """No row may complete an n-gram of `size` tokens that it holds already (Paulus et al., 2018, sec. 2.5).

    `tokens` [N, t] is what each row holds, the decoder's first input counted. To end (`eos`) is never a repetition.
    `pad` is taken for what is not banned, so it must be banned already.
    """
    if tokens.size(1) < size:
        return
    ngrams = tokens.unfold(1, size, 1)  # [N, t - size + 1, size]
    context = tokens[:, tokens.size(1) - size + 1 :].unsqueeze(1)  # [N, 1, size - 1]
    last = ngrams[:, :, -1]
    repeats = (ngrams[:, :, :-1] == context).all(dim=-1) & (last != eos)
    log_probs.scatter_(1, last.masked_fill(~repeats, pad), NEVER)


def force(log_probs: Tensor, tokens: Tensor, scores: Tensor, forced: Tensor) -> None:
    """Where `forced` [N], a row can go on with its one of `tokens` [N] only, at its one of `scores` [N, 1]."""
    log_probs.masked_fill_(forced.unsqueeze(1), NEVER)
    rows = forced.nonzero().squeeze(1)
    log_probs[rows, tokens[rows]] = scores[rows, 0]


def top_candidates(scores: Tensor, count: int, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of [B, M], falling, and where they stand: what `topk` gives, found faster.

    `added` [B, k] is first added to each of the k equal parts of a row. The largest numbers lie in the blocks with the
    largest maxima. A block are the numbers that stand `blocks` apart: its maximum is found by comparing halves, which
    is as quick as memory, so that the addition and the slow selection see a small part of `scores` only.
    """
    added = torch.zeros(1, 1, device=scores.device).expand(scores.size(0), 1) if added is None else added
    parts = scores.view(added.size(0), added.size(1), -1)  # [B, k, M / k]
    size = parts.size(2)
    blocks = size // BLOCK
    if added.size(1) * blocks < 4 * count:
        return (parts + added.unsqueeze(2)).flatten(1).topk(count, dim=1)
    largest = parts[:, :, : blocks * BLOCK]
    while largest.size(2) > blocks:
        largest = torch.maximum(*largest.chunk(2, dim=2))
    best = (largest + added.unsqueeze(2)).flatten(1).topk(count, dim=1).indices  # [B, count]
    first = best // blocks * size + best % blocks
    inside = torch.arange(0, blocks * BLOCK, blocks, device=scores.device)
    rest = torch.arange(scores.size(1), device=scores.device).view(-1, size)[:, blocks * BLOCK :].flatten()
    places = torch.cat([(first.unsqueeze(2) + inside).flatten(1), rest.expand(scores.size(0), -1)], dim=1)
    values, index = (scores.gather(1, places) + added.gather(1, places // size)).topk(count, dim=1)
    return values, places.gather(1, index)


def first_not(taken: Tensor, count: int) -> Tensor:
    """The first `count` positions of each row of `taken` [B, C] that are False, rising: [B, count]."""
    return taken.to(torch.uint8).sort(dim=1, stable=True).indices[:, :count]


def last_into_gaps(stays: Tensor) -> Tensor:
    """The positions where `stays` [L] is True, in an order in which as few as can be change their place: [M].

    Those behind the M-th fill the gaps that the others leave.
    """
    count = int(stays.sum())
    order = torch.arange(count, device=stays.device)
    order[~stays[:count]] = stays[count:].nonzero().squeeze(1) + count
    return order


def max_lengths(src_lengths: Tensor, a: float, b: int, most: int) -> Tensor:
    """Most tokens before eos of each output: a * source length + b, rounded down, and never more than `most`. [B]"""
    return (src_lengths.double() * a + b).long().clamp(max=most)

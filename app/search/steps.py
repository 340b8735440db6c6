"""What a search does to one step's scores: N rows of log-probabilities over a vocabulary of V.

Functions that ban write -inf into their first argument and return nothing; the others change nothing.
"""

import torch
from torch import Tensor

NEVER = float("-inf")


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


def top_candidates(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of [B, M], falling, and where they stand: what `topk` gives, found faster.

    The largest numbers lie in the blocks with the largest maxima; these are found by a vectorised pass over `scores`,
    so that the slow selection sees a small part of it only.
    """
    block = 32
    size = scores.size(1)
    blocks = size // block
    if blocks < 4 * count:
        return scores.topk(count, dim=1)
    whole = scores[:, : blocks * block].view(-1, blocks, block)
    best = whole.amax(dim=2).topk(count, dim=1).indices  # [B, count]
    places = (best.unsqueeze(2) * block + torch.arange(block, device=scores.device)).flatten(1)
    rest = torch.arange(blocks * block, size, device=scores.device).expand(scores.size(0), -1)
    places = torch.cat([places, rest], dim=1)  # [B, count * block + size % block]
    values, index = scores.gather(1, places).topk(count, dim=1)
    return values, places.gather(1, index)


def first_not(taken: Tensor, count: int) -> Tensor:
    """The first `count` positions of each row of `taken` [B, C] that are False, rising: [B, count]."""
    return taken.to(torch.uint8).sort(dim=1, stable=True).indices[:, :count]


def max_lengths(src_lengths: Tensor, a: float, b: int, most: int) -> Tensor:
    """Most tokens before eos of each output: a * source length + b, rounded down, and never more than `most`. [B]"""
    return (src_lengths.double() * a + b).long().clamp(max=most)

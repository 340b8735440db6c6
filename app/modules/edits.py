"""What turns one row of tokens into another: which pieces stay, which go, and what is inserted where."""

from typing import NamedTuple

import torch
from torch import Tensor


class Alignment(NamedTuple):
    """The shortest way from x [B, X] to y [B, Y] by deleting from x and inserting from y."""

    kept: Tensor  # [B, X] the pieces of x that stay
    gap: Tensor  # [B, Y] how many pieces of x stand before the place where this piece of y is inserted; -1: it is kept


def align(x: Tensor, y: Tensor, pad: int) -> Alignment:
    """By dynamic programming over longest common subsequences; of equally short ways the one of fairseq's libnat.

    That one, seen from the end, inserts where it can, else deletes where it can, else keeps.
    """
    common = common_subsequences(x, y)
    rows = torch.arange(x.size(0), device=x.device)
    i, j = x.ne(pad).sum(1), y.ne(pad).sum(1)
    kept = torch.zeros(x.size(0), x.size(1) + 1, dtype=torch.bool, device=x.device)  # column i is x[i - 1]
    gap = torch.full((y.size(0), y.size(1) + 1), -1, device=y.device)
    for _ in range(x.size(1) + y.size(1)):
        here = common[rows, i, j]
        inserts = (j > 0) & (common[rows, i, (j - 1).clamp(min=0)] == here)
        deletes = ~inserts & (i > 0) & (common[rows, (i - 1).clamp(min=0), j] == here)
        keeps = ~inserts & ~deletes & (i > 0) & (j > 0)
        gap[rows, j] = torch.where(inserts, i, gap[rows, j])
        kept[rows, i] |= keeps
        i, j = i - (deletes | keeps).long(), j - (inserts | keeps).long()
    return Alignment(kept[:, 1:], gap[:, 1:])


def common_subsequences(x: Tensor, y: Tensor) -> Tensor:
    """[B, X], [B, Y] -> [B, X + 1, Y + 1]: the longest common subsequence of the first i and the first j pieces."""
    same = x.unsqueeze(2) == y.unsqueeze(1)
    table = torch.zeros(x.size(0), x.size(1) + 1, y.size(1) + 1, dtype=torch.long, device=x.device)
    for i in range(x.size(1)):
        with_this = torch.maximum(table[:, i, 1:], table[:, i, :-1] + same[:, i])
        table[:, i + 1, 1:] = with_this.cummax(dim=1).values
    return table


def inserted(gap: Tensor, gaps: int) -> Tensor:
    """An `Alignment`'s gap [B, Y] -> how many pieces are inserted before each of x[1], x[2], ...: [B, gaps]."""
    counts = torch.zeros(gap.size(0), gaps + 3, dtype=torch.long, device=gap.device)
    counts.scatter_add_(1, gap + 1, torch.ones_like(gap))  # what is kept, what comes before x[0], ..., after the last
    return counts[:, 2:-1]


def without(tokens: Tensor, scores: Tensor, gone: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """[B, T] twice, and where a piece goes [B, T] -> what stays, moved to the left, and only as wide as that takes."""
    gone = gone | tokens.eq(pad)
    width = int((~gone).sum(1).max())
    order = gone.long().argsort(dim=1, stable=True)[:, :width]
    left = gone.gather(1, order)
    return tokens.gather(1, order).masked_fill(left, pad), scores.gather(1, order).masked_fill(left, 0)


def with_gaps(tokens: Tensor, scores: Tensor, counts: Tensor, pad: int, unk: int) -> tuple[Tensor, Tensor]:
    """[B, T] twice, and how many places to open before each piece but the first [B, T - 1] -> rows with unk there."""
    real = tokens.ne(pad)
    counts = counts.masked_fill(~real[:, 1:], 0)
    lengths = real.sum(1) + counts.sum(1)
    width = int(lengths.max())
    place = torch.arange(tokens.size(1), device=tokens.device) + torch.nn.functional.pad(counts.cumsum(1), (1, 0))
    place = place.masked_fill(~real, width)  # beyond the rows, which are cut there
    opened = torch.arange(width + 1, device=tokens.device).expand(tokens.size(0), -1)
    rows = torch.full_like(opened, unk).masked_fill(opened >= lengths[:, None], pad).scatter(1, place, tokens)
    return rows[:, :width], scores.new_zeros(rows.shape).scatter(1, place, scores)[:, :width]


def within(counts: Tensor, room: Tensor) -> Tensor:
    """Insertions [B, T] cut, from the left, to as many as there is room for [B]."""
    ends = counts.cumsum(1).clamp(max=room.clamp(min=0)[:, None])
    return ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))

"""A softmax over a large vocabulary in which rare words get less width (Grave et al., 2017)."""

import torch
from torch import Tensor, nn

from app.modules.dropout import Dropout


class AdaptiveSoftmax(nn.Module):
    """Words by falling frequency: a head of the first `cutoff[0]` words and a class for each tail cluster, then these.

    Cluster i has width `dim // factor ** (i + 1)`.
    """

    def __init__(self, vocab_size: int, dim: int, cutoff: list[int], dropout: float, factor: float):
        super().__init__()
        if vocab_size > cutoff[-1]:
            cutoff = [*cutoff, vocab_size]
        self.cutoff = cutoff
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(dim, cutoff[0] + len(cutoff) - 1, bias=False)
        self.tail = nn.ModuleList()
        for i, (start, end) in enumerate(zip(cutoff[:-1], cutoff[1:], strict=True)):
            width = int(dim // factor ** (i + 1))
            self.tail.append(
                nn.Sequential(
                    nn.Linear(dim, width, bias=False), Dropout(dropout), nn.Linear(width, end - start, bias=False)
                )
            )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, features: Tensor) -> Tensor:
        """[..., D] -> log-probabilities of all words [..., V]."""
        features = self.dropout(features)
        head = self.head(features).log_softmax(dim=-1)
        words = self.cutoff[0]
        clusters = [
            cluster(features).log_softmax(dim=-1) + head[..., words + i : words + i + 1]
            for i, cluster in enumerate(self.tail)
        ]
        return torch.cat([head[..., :words], *clusters], dim=-1)

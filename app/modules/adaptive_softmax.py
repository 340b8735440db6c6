"""A softmax over a large vocabulary in which rare words get less width (Grave et al., 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.adaptive_input import AdaptiveInput, band_ends
from app.modules.dropout import Dropout


class AdaptiveSoftmax(nn.Module):
    """Words by falling frequency: a head of the first `cutoff[0]` words and a class for each tail cluster, then these.

    Cluster i has width `dim // factor ** (i + 1)`. With `tied` the words' vectors are those of the adaptive input, and
    with `tie_proj` its projections are used too, turned round (Baevski and Auli, 2019, sec. 3).
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        cutoff: list[int],
        dropout: float,
        factor: float = 4.0,
        tied: AdaptiveInput | None = None,
        tie_proj: bool = False,
    ):
        super().__init__()
        self.cutoff = cutoff = band_ends(cutoff, vocab_size, "adaptive_softmax_cutoff")
        self.dropout = Dropout(dropout)
        self.head: nn.Module = nn.Linear(dim, cutoff[0] + len(cutoff) - 1, bias=False)
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
        if tied is not None:
            self._tie(tied, tie_proj)

    def _tie(self, tied: AdaptiveInput, tie_proj: bool) -> None:
        self.head = TiedHead(tied.weights_of_band(0)[0], len(self.cutoff) - 1)
        for band, cluster in enumerate(self.tail, start=1):
            words, projection = tied.weights_of_band(band)
            cluster[2] = Tied(words)  # type: ignore[operator]
            if tie_proj:
                cluster[0] = Tied(projection, transpose=True)  # type: ignore[operator]

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

    def nll(self, features: Tensor, target: Tensor, left_out: int | None = None) -> Tensor:
        """[N, D], [N] -> minus the log-probability of each target [N]; a tail is computed for its own words only.

        `left_out` is a number within each tail cluster whose word gets the cluster's probability instead of its own.
        """
        features = self.dropout(features)
        cluster = torch.bucketize(target, torch.tensor(self.cutoff, device=target.device), right=True)  # 0: the head
        classes = torch.where(cluster == 0, target, self.cutoff[0] + cluster - 1)
        lprobs = self.head(features).log_softmax(dim=-1, dtype=torch.float32)
        nll: Tensor = -lprobs.gather(1, classes[:, None]).squeeze(1)
        for i, tail in enumerate(self.tail):
            rows = (cluster == i + 1).nonzero().squeeze(1)
            inside = target[rows] - self.cutoff[i]
            lprobs = tail(features[rows]).log_softmax(dim=-1, dtype=torch.float32)
            own = -lprobs.gather(1, inside[:, None]).squeeze(1)
            nll = nll.index_add(0, rows, own if left_out is None else own.masked_fill(inside == left_out, 0.0))
        return nll


class Tied(nn.Module):
    """A linear layer without bias whose weight is another module's."""

    def __init__(self, weight: Tensor, transpose: bool = False):
        super().__init__()
        self.weight, self.transpose = weight, transpose

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t() if self.transpose else self.weight)


class TiedHead(nn.Module):
    """The head: scores of the most frequent words by their embeddings, and of the tail clusters by own weights."""

    def __init__(self, words: Tensor, num_clusters: int):
        super().__init__()
        self.word_proj = Tied(words)
        self.class_proj = nn.Linear(words.size(1), num_clusters, bias=False)
        nn.init.xavier_uniform_(self.class_proj.weight)

    def forward(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., words and clusters]."""
        return torch.cat([self.word_proj(features), self.class_proj(features)], dim=-1)

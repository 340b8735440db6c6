"""Several models read as one while a search runs."""

import math

import torch
from torch import Tensor

from app.interfaces import Model


class Ensemble:
    """The mean of the models' distributions, step by step, over the rows that a search keeps alive.

    A language model `lm`, if there is one, adds its log-probabilities, times `lm_weight`, to those of the models
    (shallow fusion: Gulcehre et al., 2015, sec. 4.1). The sums are scores, no longer a distribution.
    """

    def __init__(
        self,
        models: list[Model],
        src_tokens: Tensor,
        src_lengths: Tensor,
        temperature: float,
        lm: Model | None = None,
        lm_weight: float = 0.0,
    ):
        self.models = models
        self.temperature = temperature
        self.rows = 0  # of every cache
        self.encoder_outs = [model.encode(src_tokens, src_lengths) for model in models]
        self.lm, self.lm_weight = lm, lm_weight
        everyone = models if lm is None else [*models, lm]
        self.caches = [model.new_cache() for model in everyone]
        self.max_len = min(model.max_positions[1] for model in everyone)  # positions of the target, eos counted

    def log_probs(self, tokens: Tensor) -> Tensor:
        """The newest token of each row, [N] -> log-probabilities of the one after it, [N, V]; fp32, or one model's."""
        self.rows = tokens.size(0)
        each = []
        for model, encoder_out, cache in zip(self.models, self.encoder_outs, self.caches):
            features = model.decode(tokens.unsqueeze(1), encoder_out, cache)[:, -1]
            each.append(log_probs(model, features, self.temperature))
        mean = each[0] if len(each) == 1 else torch.stack(each).float().logsumexp(dim=0) - math.log(len(each))
        if self.lm is None:
            return mean
        features = self.lm.decode(tokens.unsqueeze(1), None, self.caches[-1])[:, -1]
        return mean.float() + self.lm_weight * log_probs(self.lm, features).float()

    def reorder(self, rows: Tensor) -> None:
        """Make row `rows[i]` the new row i of every cache. Where all stay, as in greedy search, nothing is done."""
        if rows.size(0) == self.rows and torch.equal(rows, torch.arange(self.rows, device=rows.device)):
            return
        for cache in self.caches:
            cache.reorder(rows)

    def keep_sentences(self, sentences: Tensor) -> None:
        """Forget the source of every sentence but these: row `sentences[i]` becomes the new row i. [M]"""
        for cache in self.caches:
            cache.keep_sentences(sentences)
        self.encoder_outs = [out.select(sentences) for out in self.encoder_outs]


def log_probs(model: Model, features: Tensor, temperature: float = 1.0) -> Tensor:
    """[N, D] -> [N, V]. They are written over the scores: another block of so much memory would cost more."""
    scores = model.project(features).contiguous()
    if temperature != 1.0:
        scores = scores / temperature
    found: Tensor = torch.ops.aten._log_softmax.out(scores, -1, False, out=scores)
    return found

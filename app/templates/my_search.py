"""MySearch: say here how outputs are found, and where that comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.interfaces import Model
from app.ranges import positive
from app.search import Hypothesis, Search


@dataclass
class MySearchConfig:
    max_len: int  # longest output with eos

    def check(self) -> Iterator[str]:
        yield from positive(self, "max_len")


class MySearch(Search):
    """The first model's best word at every step. A sentence that has ended goes on, and what follows eos is cut off."""

    def __init__(self, cfg: MySearchConfig, vocabulary: Vocabulary):
        self.cfg, self.vocabulary = cfg, vocabulary

    @torch.inference_mode()
    def generate(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        model, eos = models[0], self.vocabulary.eos
        encoder_out, cache = model.encode(src_tokens, src_lengths), model.new_cache()
        token = src_tokens.new_full((len(src_tokens), 1), eos)
        tokens, scores = [], []
        for step in range(min(self.cfg.max_len, model.max_positions[1])):
            log_probs = model.project(model.decode(token, encoder_out, cache)[:, 0]).log_softmax(dim=-1)  # [B, V]
            log_probs[:, self.vocabulary.pad] = -torch.inf
            token = log_probs.argmax(dim=-1, keepdim=True)  # [B, 1]
            if prefix_tokens is not None and step < prefix_tokens.size(1):
                given = prefix_tokens[:, step : step + 1]
                token = torch.where(given.eq(self.vocabulary.pad), token, given)
            tokens.append(token)
            scores.append(log_probs.gather(1, token))
        return [[self._cut(*row)] for row in zip(torch.cat(tokens, dim=1), torch.cat(scores, dim=1))]

    def _cut(self, tokens: Tensor, scores: Tensor) -> Hypothesis:
        """[T], [T] -> the hypothesis up to its eos, which is put in the last place where there is none."""
        ends = tokens.eq(self.vocabulary.eos).nonzero()
        length = int(ends[0]) + 1 if len(ends) else len(tokens)
        tokens = torch.cat([tokens[: length - 1], tokens.new_tensor([self.vocabulary.eos])])
        return Hypothesis(tokens, float(scores[:length].mean()), scores[:length])

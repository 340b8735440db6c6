"""The output that would be right most often, instead of the most probable one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.interfaces import Model
from app.ranges import one_of
from app.search import Hypothesis, Search
from app.search.sampling import Sampling, SamplingConfig


@dataclass
class MbrConfig(SamplingConfig):
    """`beam` samples are drawn; they are the candidates, and stand for what could be right."""

    utility: str  # how much a candidate is worth if another sample is right: chrf, or bleu of the sentence

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from one_of(self, "utility", "chrf", "bleu")


class MinimumBayesRisk(Search):
    """The samples in the order of their mean utility against all samples (Eikema and Aziz, 2020), each output once.

    Utilities are computed on pieces with spaces between them, chrF on their characters without the spaces. Scores stay
    the model's, so that they need not fall along the list.
    """

    def __init__(self, cfg: MbrConfig, vocabulary: Vocabulary):
        self.nbest, self.vocabulary, self.lm_path = cfg.nbest, vocabulary, cfg.lm_path
        self.sampling = Sampling(replace(cfg, nbest=cfg.beam), vocabulary)
        self.metric = CHRF() if cfg.utility == "chrf" else BLEU(effective_order=True, tokenize="none")

    def generate(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        self.sampling.lm = self.lm
        return [self._by_utility(row) for row in self.sampling.generate(models, src_tokens, src_lengths, prefix_tokens)]

    def _by_utility(self, samples: list[Hypothesis]) -> list[Hypothesis]:
        texts = [" ".join(self.vocabulary.decode(sample.tokens.tolist())) for sample in samples]
        weights = {text: texts.count(text) for text in texts}  # a sample drawn twice counts twice
        utility = {
            text: sum(count * self.metric.sentence_score(text, [other]).score for other, count in weights.items())
            for text in weights
        }
        unique = dict(zip(texts, samples))
        ranked = sorted(unique, key=lambda text: -utility[text])
        return [unique[text] for text in ranked[: self.nbest]]

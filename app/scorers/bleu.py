"""BLEU (Papineni et al., 2002) as sacreBLEU computes it (Post, 2018)."""

from collections.abc import Iterator
from dataclasses import dataclass

from sacrebleu.metrics import BLEU

from app.ranges import one_of, positive
from app.scorers import Score, Scorer


@dataclass
class BleuConfig:
    tokenize: str  # sacreBLEU's tokenizer: 13a (most papers), intl, char, zh, ja-mecab, ko-mecab, flores200, none, ...
    lowercase: bool  # ignore case
    smooth_method: str  # for n-grams that never match: exp, floor, add-k, none
    smooth_value: float | None  # of floor and add-k; null: sacreBLEU's
    max_ngram_order: int  # the longest n-grams that count
    effective_order: bool  # leave out orders that an output is too short for: for single sentences

    def check(self) -> Iterator[str]:
        yield from one_of(self, "tokenize", *BLEU.TOKENIZERS)
        yield from one_of(self, "smooth_method", *BLEU.SMOOTH_DEFAULTS)
        yield from positive(self, "max_ngram_order")


class Bleu(Scorer):
    """Precision of n-grams, 0 to 100, with a penalty for brevity."""

    name = "bleu"
    higher_is_better = True

    def __init__(self, cfg: BleuConfig):
        self.metric = BLEU(
            lowercase=cfg.lowercase,
            tokenize=cfg.tokenize,
            smooth_method=cfg.smooth_method,
            smooth_value=cfg.smooth_value,
            max_ngram_order=cfg.max_ngram_order,
            effective_order=cfg.effective_order,
            force=True,  # no warning about text that looks tokenised: what is scored here is detokenised
        )

    def score(self, hypotheses: list[str], references: list[str]) -> Score:
        result = self.metric.corpus_score(hypotheses, [references])
        return Score(self.name, result.score, str(self.metric.get_signature()), str(result))

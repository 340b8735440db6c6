"""chrF and chrF++ (Popovic, 2015 and 2017) as sacreBLEU computes them."""

from collections.abc import Iterator
from dataclasses import dataclass

from sacrebleu.metrics import CHRF

from app.ranges import at_least, positive
from app.scorers import Score, Scorer


@dataclass
class ChrfConfig:
    char_order: int  # the longest n-grams of characters
    word_order: int  # the longest n-grams of words: 0 is chrF, 2 is chrF++
    beta: int  # how much more recall weighs than precision
    lowercase: bool  # ignore case
    whitespace: bool  # spaces are characters too

    def check(self) -> Iterator[str]:
        yield from positive(self, "char_order", "beta")
        yield from at_least(self, 0, "word_order")


class Chrf(Scorer):
    """F-score of character n-grams, 0 to 100."""

    name = "chrf"
    higher_is_better = True

    def __init__(self, cfg: ChrfConfig):
        self.metric = CHRF(
            char_order=cfg.char_order,
            word_order=cfg.word_order,
            beta=cfg.beta,
            lowercase=cfg.lowercase,
            whitespace=cfg.whitespace,
        )

    def score(self, hypotheses: list[str], references: list[str]) -> Score:
        result = self.metric.corpus_score(hypotheses, [references])
        return Score(self.name, result.score, str(self.metric.get_signature()), str(result))

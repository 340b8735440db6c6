"""MyScorer: say here what is measured."""

from dataclasses import dataclass

from app.scorers import Score, Scorer


@dataclass
class MyScorerConfig:
    ignore_case: bool  # capitals are not told apart


class MyScorer(Scorer):
    """How many outputs are their references, in percent."""

    name = "my_scorer"
    higher_is_better = True

    def __init__(self, cfg: MyScorerConfig):
        self.cfg = cfg

    def score(self, hypotheses: list[str], references: list[str]) -> Score:
        pairs = list(zip(hypotheses, references, strict=True))
        if self.cfg.ignore_case:
            pairs = [(ours.lower(), theirs.lower()) for ours, theirs in pairs]
        value = 100 * sum(ours == theirs for ours, theirs in pairs) / len(pairs)
        signature = f"ignore_case:{self.cfg.ignore_case}"
        return Score(self.name, value, signature, f"{self.name} = {value:.2f} ({signature})")

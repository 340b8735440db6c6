"""The share of outputs that are their references, character for character."""

from dataclasses import dataclass

from app.scorers import Score, Scorer


@dataclass
class ExactMatchConfig:
    lowercase: bool  # ignore case


class ExactMatch(Scorer):
    """0 to 100; spaces at a line's ends do not count."""

    name = "exact_match"
    higher_is_better = True

    def __init__(self, cfg: ExactMatchConfig):
        self.lowercase = cfg.lowercase

    def score(self, hypotheses: list[str], references: list[str]) -> Score:
        equal = sum(self._clean(a) == self._clean(b) for a, b in zip(hypotheses, references, strict=True))
        value = 100 * equal / max(1, len(references))
        signature = f"nrefs:1|case:{'lc' if self.lowercase else 'mixed'}"
        return Score(self.name, value, signature, f"EM = {value:.2f} ({equal} of {len(references)})")

    def _clean(self, line: str) -> str:
        return (line.lower() if self.lowercase else line).strip()

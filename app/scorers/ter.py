"""Translation edit rate (Snover et al., 2006) as sacreBLEU computes it."""

from dataclasses import dataclass

from sacrebleu.metrics import TER

from app.scorers import Score, Scorer


@dataclass
class TerConfig:
    normalized: bool  # split off punctuation first
    no_punct: bool  # leave punctuation out
    asian_support: bool  # also split Chinese and Japanese characters
    case_sensitive: bool  # upper and lower case differ


class Ter(Scorer):
    """Edits, moves of phrases included, for 100 words of the reference: 0 is perfect, and it may exceed 100."""

    name = "ter"
    higher_is_better = False

    def __init__(self, cfg: TerConfig):
        self.metric = TER(
            normalized=cfg.normalized,
            no_punct=cfg.no_punct,
            asian_support=cfg.asian_support,
            case_sensitive=cfg.case_sensitive,
        )

    def score(self, hypotheses: list[str], references: list[str]) -> Score:
        result = self.metric.corpus_score(hypotheses, [references])
        return Score(self.name, result.score, str(self.metric.get_signature()), str(result))

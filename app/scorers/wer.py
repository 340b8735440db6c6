"""Word and character error rate, computed by jiwer, with fairseq's options."""

import unicodedata
from dataclasses import dataclass
from importlib.metadata import version

from app.errors import ConfigError
from app.scorers import Score, Scorer


@dataclass
class WerConfig:
    lowercase: bool  # ignore case
    remove_punct: bool  # leave out words that are nothing but punctuation
    char_level: bool  # count characters instead of words, spaces too: the character error rate


class Wer(Scorer):
    """Words put in, left out or replaced, for 100 words of the reference: 0 is perfect, and it may exceed 100."""

    name = "wer"
    higher_is_better = False

    def __init__(self, cfg: WerConfig):
        self.cfg = cfg
        try:
            import jiwer
        except ModuleNotFoundError:
            raise ConfigError(["scorer.wer: needs jiwer; pip install 'seqwright[wer]'"]) from None
        self.align = jiwer.process_characters if cfg.char_level else jiwer.process_words
        self.version = version("jiwer")

    def score(self, hypotheses: list[str], references: list[str]) -> Score:
        result = self.align([self._clean(line) for line in references], [self._clean(line) for line in hypotheses])
        edits = result.substitutions + result.deletions + result.insertions
        length = result.hits + result.substitutions + result.deletions
        value = 100 * edits / max(1, length)
        unit = "CER" if self.cfg.char_level else "WER"
        parts = f"S = {result.substitutions} D = {result.deletions} I = {result.insertions} ref_len = {length}"
        return Score(self.name, value, self._signature(), f"{unit} = {value:.2f} ({parts})")

    def _signature(self) -> str:
        case = "lc" if self.cfg.lowercase else "mixed"
        level = "char" if self.cfg.char_level else "word"
        punctuation = "no" if self.cfg.remove_punct else "yes"
        return f"nrefs:1|case:{case}|level:{level}|punct:{punctuation}|jiwer:{self.version}"

    def _clean(self, line: str) -> str:
        if self.cfg.lowercase:
            line = line.lower()
        words = line.split()
        if self.cfg.remove_punct:
            words = [word for word in words if not all(unicodedata.category(c).startswith("P") for c in word)]
        return " ".join(words)

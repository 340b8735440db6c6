"""How good outputs are, against references. One file a scorer; this page says what a scorer is."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple


class Score(NamedTuple):
    """A number that can be compared with other people's, because it says how it was made."""

    name: str  # short, lower case: bleu, chrf, ter, wer
    value: float
    signature: str  # everything that changes the number, as sacreBLEU writes it
    text: str  # one line for a person: the value with its parts


class Scorer(ABC):
    """Compares plain, detokenised lines with references."""

    name: str
    higher_is_better: bool

    @abstractmethod
    def __init__(self, cfg: Any): ...

    @abstractmethod
    def score(self, hypotheses: list[str], references: list[str]) -> Score: ...

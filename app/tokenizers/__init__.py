"""Text <-> pieces. One file a tokenizer; this page says what a tokenizer is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.errors import ConfigError


class Tokenizer(ABC):
    """Splits a line into pieces and joins pieces into a line. One instance serves one vocabulary.

    A piece holds neither a space nor a newline. Instances are sent to worker processes, so they must pickle.
    """

    def __init__(self, cfg: Any):
        self.cfg = cfg  # with the training text and `sources`, all that `train` depends on

    def sources(self) -> list[Path]:
        """Files that `train` reads beside the text; a run directory needs them no more."""
        return []

    def train(self, lines: Iterable[str]) -> None:
        """Learn from the training text. Most tokenizers have nothing to learn."""

    @abstractmethod
    def encode(self, line: str) -> list[str]:
        """The pieces of a line (without its newline)."""

    @abstractmethod
    def decode(self, pieces: list[str]) -> str:
        """The line that `pieces` spell, as a reader expects it."""

    def begins_word(self, piece: str) -> bool:
        """Whether a piece starts a word, for masks of whole words. `ConfigError` where pieces do not say."""
        raise ConfigError([f"tokenizer: the pieces of {type(self).__name__} do not say where words start; choose word"])

    def save(self, directory: Path) -> None:
        """Write what was learnt into an existing directory."""

    def load(self, directory: Path) -> None:
        """Read what `save` wrote."""

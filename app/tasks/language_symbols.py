"""Entries of a vocabulary that stand for languages."""

from app.data.vocabulary import Vocabulary
from app.errors import ConfigError

STYLES = {  # as fairseq's multilingual_translation writes them, and as mBART does
    "multilingual": "__{}__",
    "mbart": "[{}]",
}


def language_symbols(langs: list[str], style: str) -> tuple[str, ...]:
    """The entries for these languages."""
    return tuple(STYLES[style].format(lang) for lang in langs)


def index_of(vocabulary: Vocabulary, lang: str, style: str) -> int:
    """The id of a language's entry. `ConfigError` where a vocabulary from another run has none."""
    (symbol,) = language_symbols([lang], style)
    index = vocabulary.index(symbol)
    if vocabulary.pieces[index] != symbol:
        raise ConfigError([f"task: the vocabulary has no {symbol}; start from a run whose task.langs has {lang}"])
    return index

"""How good a model's outputs are: the one way to measure it, in training's validation and in `app.generate`."""

from collections.abc import Mapping

from app.errors import DataError
from app.interfaces import Generator
from app.runtime.distributed import Workers
from app.scorers import Score, Scorer


def translate_and_score(
    generator: Generator,
    source_lines: list[str],
    references: list[str],
    scorers: Mapping[str, Scorer],
    workers: Workers | None = None,
) -> tuple[list[str], list[Score]]:
    """The best translation of every line, detokenised, in order; and its scores against the raw references.

    Of several workers, each translates its share of the lines, and all return the same.
    """
    workers = workers or Workers()
    own = generator.generate(source_lines[workers.rank :: workers.world_size])
    translations = [""] * len(source_lines)
    for rank, texts in enumerate(workers.gather([each[0].text if each else "" for each in own])):
        translations[rank :: workers.world_size] = texts
    return translations, score_lines(translations, references, scorers)


def of_all_pairs(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The scores of each pair of languages, such as bleu_de-en, and their means, such as bleu. One pair has no name."""
    if len(scores) == 1:
        return dict(*scores.values())
    named = {f"{name}_{pair}": value for pair, each in scores.items() for name, value in each.items()}
    means = {name: sum(each[name] for each in scores.values()) / len(scores) for name in next(iter(scores.values()))}
    return means | named


def score_lines(translations: list[str], references: list[str], scorers: Mapping[str, Scorer]) -> list[Score]:
    """Every scorer's score. Raises `DataError` where there is not one translation for every reference."""
    if len(translations) != len(references) or not references:
        raise DataError(
            f"scoring: {len(translations)} translations for {len(references)} references; give one for each"
        )
    return [scorer.score(translations, references) for scorer in scorers.values()]

"""Trained models from Python: `load("outputs/run").translate(["..."])`.

Everything is batched and ordered inside. Nothing of Hydra is used, so that this works in any program.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.catalogue import values_of
from app.compatibility import device_faults
from app.compose import CONF
from app.errors import ConfigError, DataError
from app.inference import load_runs, load_search, prepare_models
from app.interfaces import Model, Task, Translation
from app.lines import is_unicode
from app.modules.packing import PRECISIONS
from app.plugins import configure
from app.tasks.reference_scores import HasPair, score_lines
from app.tasks.sentences import Predicts


class TranslationModel:
    """One trained model, or an ensemble of several, ready for lines of text."""

    def __init__(self, task: Task, models: list[Model], device: str, max_tokens: int):
        self.task, self.models = task, models
        self.device, self.max_tokens = device, max_tokens

    def translate(self, lines: Iterable[str], search: str = "beam", **options: Any) -> list[str]:
        """The best translation of every line, in order. See `hypotheses`."""
        return [each[0].text for each in self.hypotheses(lines, search, **options)]

    def sample(self, lines: Iterable[str], **options: Any) -> list[str]:
        """A translation of every line drawn at random; `seed=N` draws others. Options: those of `search=sampling`."""
        return self.translate(lines, "sampling", **options)

    def hypotheses(self, lines: Iterable[str], search: str = "beam", **options: Any) -> list[list[Translation]]:
        """The `nbest` translations of every line, with pieces and scores.

        `search` names a file of `conf/search`, `options` its fields: `beam=5, nbest=5, lenpen=0.6`.
        Raises `ConfigError` for an option that is not known or out of range, `DataError` for a line that is too long or
        no text.
        """
        given = texts(lines, "lines")
        make_search = configure({**defaults(search), **options}, "app.search.Search", "search")
        made = load_search(make_search, self.task.target_vocabulary, self.device)
        return self.task.build_generator(self.models, made).generate(given)

    def score(self, lines: Iterable[str], translations: Iterable[str]) -> list[Translation]:
        """How probable each of the given translations is; `score` is the mean log-probability of its tokens and eos."""
        if not isinstance(self.task, HasPair):
            raise ConfigError([f"{type(self.task).__name__}: has no source and target text to score"])
        sources, given = texts(lines, "lines"), texts(translations, "translations")
        return score_lines(self.models, self.task.only_pair(), sources, given, self.max_tokens)

    def predict(self, rows: Sequence[str | Sequence[str]]) -> list[str]:
        """The class of every row, or its number, of models of `task=sentence_prediction`. A pair is a row of two texts.

        Raises `DataError` for a row that is too long, or has another number of texts than those of the training.
        """
        if not isinstance(self.task, Predicts):
            raise ConfigError(
                [f"{type(self.task).__name__}: has no classes to predict; use translate, sample or score"]
            )
        texts = [[row] if isinstance(row, str) else list(row) for row in rows]
        return [predicted.label for predicted in self.task.predict(self.models, texts)]


def load(
    *runs: str | Path,
    device: str = "auto",
    max_tokens: int = 4096,
    precision: str = "fp32",
    lang_pair: str | None = None,
) -> TranslationModel:
    """The best checkpoint of a run directory, or a checkpoint; several are an ensemble, which must share vocabularies.

    `max_tokens` is the largest batch, in source tokens; `precision` that of products: fp32, bf16, or int8 on a CPU.
    `lang_pair`, such as de-en, says what to translate where a run has several pairs of languages.
    Raises `CheckpointError` where anything is missing or damaged.
    """
    if not runs:
        raise ConfigError(["load: needs a run directory, such as outputs/RUN"])
    if faults := list(device_faults(device, "device")):
        raise ConfigError(faults)
    if precision not in PRECISIONS:
        raise ConfigError([f"precision={precision}: must be one of {', '.join(PRECISIONS)}"])
    if max_tokens < 1:
        raise ConfigError([f"max_tokens={max_tokens}: must be greater than 0"])
    restored = load_runs([Path(run) for run in runs], device, None, max_tokens)
    models = [run.model for run in restored]
    prepare_models(models, precision)
    return TranslationModel(restored[0].task.of_pair(lang_pair), models, device, max_tokens)


def texts(given: Iterable[str], name: str) -> list[str]:
    """The lines as a list. Raises `DataError` for one text in their place, and for what is no text."""
    if isinstance(given, str):
        raise DataError(f"{name}: is one text; give a list, [{given[:40]!r}]")
    lines = list(given)
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str) or not is_unicode(line):
            fault = "holds half of a surrogate pair" if isinstance(line, str) else f"is of type {type(line).__name__}"
            raise DataError(f"{name}: line {number} {fault}; give text")
    return lines


def defaults(search: str) -> dict[str, Any]:
    """The values of `conf/search/<search>.yaml`, over those of the files that it starts from."""
    path = CONF / "search" / f"{search}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise ConfigError([f"search={search}: not known; there are {known}"])
    return values_of("search", search, [CONF])

"""Models, a search strategy and a task's text, put together: lines in, translations out, in the same order."""

import numpy as np
import torch

from app.data.batching import make_batches
from app.errors import DataError
from app.interfaces import Model, Translation
from app.search import Hypothesis, Search
from app.tasks.text import Text

NOTHING = Translation(text="", pieces=[], score=0.0, positional_scores=[], source_pieces=[])


class TextGenerator:
    """See `interfaces.Generator`. Lines of like length are searched together, `max_tokens` source tokens at a time."""

    def __init__(
        self,
        models: list[Model],
        search: Search,
        source: Text,
        target: Text,
        max_source_positions: int,
        max_tokens: int,
    ):
        self._models, self._search = models, search
        self._source, self._target = source, target
        self._longest = min([max_source_positions, *(model.max_positions[0] for model in models)])
        self._max_tokens = max_tokens

    def generate(self, lines: list[str]) -> list[list[Translation]]:
        """The n best translations of every line. A line of white space has one, empty; no model is asked.

        `DataError` for a line that is longer than the models or the task allow.
        """
        pieces = [self._source.tokenizer.encode(line) if line.strip() else [] for line in lines]
        lengths = np.array([len(line) + 1 for line in pieces], dtype=np.int64)
        if len(lines) and lengths.max() > self._longest:
            worst = int(lengths.argmax())
            raise DataError(
                f"line {worst + 1} ({lines[worst][:40]!r}...) has {lengths[worst]} tokens, more than {self._longest} "
                "(task.max_source_positions and the model's); split the line"
            )
        translations = [[NOTHING] for _ in lines]
        filled = np.flatnonzero(lengths > 1)
        max_tokens = max(self._max_tokens, int(lengths.max(initial=0)))  # every line fits into some batch
        batches = make_batches(lengths[filled], lengths[filled], max_tokens)
        for batch in reversed(batches):  # the longest first, so that memory is claimed at once
            rows = filled[batch]
            for row, hypotheses in zip(rows, self._search_batch([pieces[row] for row in rows]), strict=True):
                translations[row] = [self._translation(hypothesis, pieces[row]) for hypothesis in hypotheses]
        return translations

    def _search_batch(self, batch: list[list[str]]) -> list[list[Hypothesis]]:
        vocabulary = self._source.vocabulary
        rows = [torch.from_numpy(vocabulary.encode(pieces)).long() for pieces in batch]
        device = next(self._models[0].parameters()).device
        src_tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=vocabulary.pad).to(device)
        src_lengths = torch.tensor([len(row) for row in rows], device=device)
        training = [model.training for model in self._models]
        for model in self._models:
            model.eval()
        try:
            with torch.inference_mode():
                return self._search.generate(self._models, src_tokens, src_lengths)
        finally:
            for model, was_training in zip(self._models, training):
                model.train(was_training)

    def _translation(self, hypothesis: Hypothesis, source_pieces: list[str]) -> Translation:
        pieces = self._target.vocabulary.decode(hypothesis.tokens.tolist())
        attention = hypothesis.attention
        return Translation(
            text=self._target.tokenizer.decode(pieces),
            pieces=pieces,
            score=float(hypothesis.score),
            positional_scores=hypothesis.positional_scores.tolist(),
            source_pieces=source_pieces,
            alignment=None if attention is None else attention[: len(pieces)].argmax(dim=-1).tolist(),
        )

"""Models, a search strategy and a task's text, put together: lines in, translations out, in the same order."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.data.batching import make_batches
from app.data.frame import PLAIN, Frame
from app.errors import DataError
from app.interfaces import Model, Translation
from app.search import Constraints, Hypothesis, Search
from app.tasks.text import Text

NOTHING = Translation(text="", pieces=[], score=0.0, positional_scores=[], source_pieces=[])


class TextGenerator:
    """See `interfaces.Generator`. Lines of like length are searched together, `max_tokens` source tokens at a time.

    With `continues` a line is the beginning of the output, for language models, rather than its source. `frame` says
    what stands around sources and outputs.
    """

    def __init__(
        self,
        models: list[Model],
        search: Search,
        source: Text,
        target: Text,
        max_source_positions: int,
        max_tokens: int,
        continues: bool = False,
        frame: Frame = PLAIN,
    ):
        search.check_models(models)
        self._models, self._frame = models, frame
        plain = (frame.decoder_start, frame.target_end) == (PLAIN.decoder_start, PLAIN.target_end)
        self._search = search if plain else search.between(frame.decoder_start, frame.target_end[-1])
        self._source, self._target = source, target
        self._longest = min([max_source_positions, *(model.max_positions[0] for model in models)])
        self._max_tokens, self._continues = max_tokens, continues

    def generate(self, lines: list[str]) -> list[list[Translation]]:
        """The n best translations of every line. A line of white space has one, empty; no model is asked.

        Where the search takes phrases that outputs must have, a line may bring its own, each after a tab.
        `DataError` for a line that is longer than the models or the task allow.
        """
        lines, phrases = self._phrases(lines)
        pieces = [self._source.tokenizer.encode(line) if line.strip() else [] for line in lines]
        extra = 1 + self._frame.source_extra
        lengths = np.array([len(line) + extra for line in pieces], dtype=np.int64)
        if len(lines) and lengths.max() > self._longest:
            worst = int(lengths.argmax())
            raise DataError(
                f"line {worst + 1} ({lines[worst][:40]!r}...) has {lengths[worst]} tokens, more than {self._longest} "
                "(task.max_source_positions and the model's); split the line"
            )
        translations = [[NOTHING] for _ in lines]
        filled = np.flatnonzero(lengths > extra)
        max_tokens = max(self._max_tokens, int(lengths.max(initial=0)))  # every line fits into some batch
        batches = make_batches(lengths[filled], lengths[filled], max_tokens)
        for batch in reversed(batches):  # the longest first, so that memory is claimed at once
            rows = filled[batch]
            constraints = None if phrases is None else [phrases[row] for row in rows]
            found = self._search_batch([pieces[row] for row in rows], constraints)
            for row, hypotheses in zip(rows, found, strict=True):
                translations[row] = [self._translation(hypothesis, pieces[row]) for hypothesis in hypotheses]
        return translations

    def too_long(self, lines: list[str]) -> list[int]:
        """The numbers, from 0, of the lines that `generate` refuses."""
        lines, _ = self._phrases(lines)
        encode, longest = self._source.tokenizer.encode, self._longest - self._frame.source_extra
        return [number for number, line in enumerate(lines) if len(encode(line)) >= longest]

    def _phrases(self, lines: list[str]) -> tuple[list[str], Constraints | None]:
        """The lines without their phrases, and the ids of all phrases of each; None where the search takes none."""
        always = self._search.phrases
        if always is None:
            return lines, None
        split = [line.split("\t") for line in lines]
        encode, vocabulary = self._target.tokenizer.encode, self._target.vocabulary
        wanted = [[phrase for phrase in [*always, *own] if phrase.strip()] for _, *own in split]
        ids = [[vocabulary.encode(encode(each), append_eos=False).tolist() for each in phrases] for phrases in wanted]
        return [line for line, *_ in split], ids

    def _search_batch(self, batch: list[list[str]], constraints: Constraints | None) -> list[list[Hypothesis]]:
        vocabulary = self._source.vocabulary
        rows = [torch.from_numpy(vocabulary.encode(pieces)).long() for pieces in batch]
        device = next(self._models[0].parameters()).device
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=vocabulary.pad)
        tokens, sizes = self._frame.source(padded.numpy(), np.array([len(row) for row in rows]))
        src_tokens, src_lengths = torch.from_numpy(tokens).to(device), torch.from_numpy(sizes).to(device)
        training = [model.training for model in self._models]
        for model in self._models:
            model.eval()
        try:
            with torch.inference_mode():
                more: dict[str, Any] = {} if constraints is None else {"constraints": constraints}
                if self._continues:
                    more["prefix_tokens"] = src_tokens.masked_fill(src_tokens == vocabulary.eos, vocabulary.pad)[:, :-1]
                return self._search.generate(self._models, src_tokens, src_lengths, **more)
        finally:
            for model, was_training in zip(self._models, training):
                model.train(was_training)

    def _translation(self, hypothesis: Hypothesis, source_pieces: list[str]) -> Translation:
        symbols = {*self._frame.target_start, *self._frame.target_end}
        kept = [place for place, token in enumerate(hypothesis.tokens.tolist()) if token not in symbols]
        pieces = self._target.vocabulary.decode(hypothesis.tokens[kept].tolist())
        first = len(self._frame.source_start)
        attention, history = hypothesis.attention, hypothesis.history
        seen = len(source_pieces) + 1  # source pieces and eos
        return Translation(
            text=self._target.tokenizer.decode(pieces),
            pieces=pieces,
            score=float(hypothesis.score),
            positional_scores=hypothesis.positional_scores.tolist(),
            source_pieces=source_pieces,
            alignment=None if attention is None else _hard(attention[kept, first : first + len(source_pieces)]),
            attention=None if attention is None else attention[kept][: len(pieces), first : first + seen].tolist(),
            history=None if history is None else [self._text(tokens) for tokens in history],
        )

    def _text(self, tokens: Tensor) -> str:
        return self._target.tokenizer.decode(self._target.vocabulary.decode(tokens.tolist()))


def _hard(attention: Tensor) -> list[int]:
    """[T, S] -> for each output piece the source piece attended most; neither side's other symbols count."""
    return attention.argmax(dim=-1).tolist() if attention.numel() else []

"""What models think of translations that are given to them, as text."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from app.data.batching import make_batches
from app.errors import DataError
from app.interfaces import Model, Translation
from app.search import Hypothesis
from app.search.forced import score_reference
from app.tasks.pairs import LanguagePair, of_pair


@runtime_checkable
class HasPair(Protocol):
    """A task that translates."""

    def only_pair(self) -> LanguagePair:
        """What it translates; `ConfigError` where it has to be chosen first."""


def score_lines(
    models: list[Model], pair: LanguagePair, lines: list[str], references: list[str], max_tokens: int
) -> list[Translation]:
    """Every reference as a translation of its line, with the scores of its tokens and of eos; `score` is their mean.

    What else stands around a target (`pair.frame`) is scored too. Raises `DataError` for a pair that is longer than the
    models allow.
    """
    if len(lines) != len(references):
        raise DataError(f"scoring: {len(references)} references for {len(lines)} lines; give one for each")
    models = [of_pair(model, pair.name) for model in models]
    sides = pair.source, pair.target
    pieces = [[side.tokenizer.encode(line) for side, line in zip(sides, both)] for both in zip(lines, references)]
    extra = 1 + pair.frame.source_extra, 1 + pair.frame.target_extra
    lengths = np.array([[len(each) + n for each, n in zip(both, extra)] for both in pieces], dtype=np.int64)
    lengths = lengths.reshape(-1, 2)
    longest = np.array([[model.max_positions[side] for side in (0, 1)] for model in models]).min(axis=0)
    if (lengths > longest).any():
        row = int((lengths > longest).any(axis=1).argmax())
        raise DataError(f"line {row + 1} ({lines[row][:40]!r}...) or its reference is longer than the models allow")
    found: dict[int, Translation] = {}
    for batch in make_batches(lengths[:, 0], lengths[:, 1], max(max_tokens, int(lengths.max(initial=0)))):
        for row, hypothesis in zip(batch, _scored(models, pair, [pieces[row] for row in batch]), strict=True):
            positional = hypothesis.positional_scores.tolist()
            found[int(row)] = Translation(references[row], pieces[row][1], hypothesis.score, positional, pieces[row][0])
    return [found[row] for row in range(len(lines))]


def _scored(models: list[Model], pair: LanguagePair, batch: list[list[list[str]]]) -> list[Hypothesis]:
    """The scores of a batch of pieces, [source, target] each."""
    device, pad = next(models[0].parameters()).device, pair.target.vocabulary.pad
    tensors = []
    for side, (text, framed) in enumerate(((pair.source, pair.frame.source), (pair.target, pair.frame.target))):
        rows = [torch.from_numpy(text.vocabulary.encode(both[side])).long() for both in batch]
        padded = pad_sequence(rows, batch_first=True, padding_value=pad).numpy()
        tensors += [torch.from_numpy(each).to(device) for each in framed(padded, np.array([len(row) for row in rows]))]
    src_tokens, src_lengths, target, _ = tensors
    return score_reference(models, src_tokens, src_lengths, target, pair.frame.decoder_start, pad)

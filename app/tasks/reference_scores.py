"""What models think of translations that are given to them, as text."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from app.data.batching import make_batches
from app.errors import DataError
from app.interfaces import Model, Translation
from app.search.forced import score_reference
from app.tasks.text import Text


@runtime_checkable
class HasTexts(Protocol):
    """A task of lines on two sides."""

    source: Text
    target: Text


def score_lines(
    models: list[Model], task: HasTexts, lines: list[str], references: list[str], max_tokens: int
) -> list[Translation]:
    """Every reference as a translation of its line, with the scores of its tokens and of eos; `score` is their mean.

    Raises `DataError` for a pair that is longer than the models allow.
    """
    if len(lines) != len(references):
        raise DataError(f"scoring: {len(references)} references for {len(lines)} lines; give one for each")
    pieces = [(task.source.tokenizer.encode(a), task.target.tokenizer.encode(b)) for a, b in zip(lines, references)]
    lengths = np.array([[len(side) + 1 for side in pair] for pair in pieces], dtype=np.int64).reshape(-1, 2)
    longest = np.array([[model.max_positions[side] for side in (0, 1)] for model in models]).min(axis=0)
    if (lengths > longest).any():
        row = int((lengths > longest).any(axis=1).argmax())
        raise DataError(f"line {row + 1} ({lines[row][:40]!r}...) or its reference is longer than the models allow")
    device = next(models[0].parameters()).device
    vocabularies = task.source.vocabulary, task.target.vocabulary
    found: dict[int, Translation] = {}
    for batch in make_batches(lengths[:, 0], lengths[:, 1], max(max_tokens, int(lengths.max(initial=0)))):
        source, target = (
            pad_sequence(
                [torch.from_numpy(vocabulary.encode(pieces[row][side])).long() for row in batch],
                batch_first=True,
                padding_value=vocabulary.pad,
            ).to(device)
            for side, vocabulary in enumerate(vocabularies)
        )
        src_lengths = torch.from_numpy(lengths[batch, 0]).to(device)
        scored = score_reference(models, source, src_lengths, target, vocabularies[1].eos, vocabularies[1].pad)
        for row, hypothesis in zip(batch, scored, strict=True):
            positional = hypothesis.positional_scores.tolist()
            found[int(row)] = Translation(references[row], pieces[row][1], hypothesis.score, positional, pieces[row][0])
    return [found[row] for row in range(len(lines))]

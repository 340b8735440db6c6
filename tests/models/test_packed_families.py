"""Every family decodes with packed weights, of every precision, nearly what it decodes with its own."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from app.interfaces import Model, Refinement
from app.modules.packing import PRECISIONS, packed
from tests.models import test_refining_models as refining
from tests.models import test_sequence_models as sequence
from tests.models import test_transformer as transformer

LANGUAGE_MODEL = ["decoder_embed_dim=16", "decoder_layers=2"]
MAKERS: dict[str, Callable[[], Any]] = {
    **{name: lambda options=options: sequence.build(options) for name, options in sequence.OPTIONS.items()},
    **{
        "transformer " + ",".join(options): lambda options=options: transformer.model(**options)
        for options in transformer.OPTIONS
    },
    "transformer_lm": lambda: sequence.build(["transformer_lm", *LANGUAGE_MODEL, "decoder_attention_heads=4"]),
    "fconv_self_att": lambda: sequence.build(
        ["fconv_self_att", *sequence.SIDES, "encoder_layers=[[16,3]]", "decoder_layers=[[16,3]]"]
    ),
}
ERRORS = {"fp32": 1e-4, "bf16": 0.25, "int8": 0.5}  # of log-probabilities


def steps(model: Model) -> torch.Tensor:
    """Log-probabilities of six words after two sources, step by step."""
    torch.manual_seed(2)
    lengths, target = [5, 3], sequence.rows([6, 6])
    encoder_out = model.encode(sequence.rows(lengths), torch.tensor(lengths))
    cache = model.new_cache()
    features = [model.decode(target[:, t : t + 1], encoder_out, cache) for t in range(6)]
    return model.project(torch.cat(features, dim=1)).float().log_softmax(-1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", MAKERS)
def test_it_decodes_nearly_the_same(name: str, precision: str) -> None:
    model = MAKERS[name]()
    fast = copy.deepcopy(model)
    packed(fast, precision)
    with torch.inference_mode():
        assert (steps(fast) - steps(model)).abs().max() < ERRORS[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", refining.NOISES)
def test_it_refines(name: str, precision: str) -> None:
    model, source = refining.refining([name]), refining.framed([7, 3, 5])
    packed(model, precision)
    with torch.inference_mode():
        encoder_out = model.encode(source, source.ne(refining.PAD).sum(1))
        draft = model.initialize(encoder_out)
        for step in range(3):
            draft = model.refine(draft, encoder_out, Refinement(step, 3, 0.0, 2.0))
    assert draft.tokens.shape == draft.scores.shape
    assert draft.scores.le(0).all()

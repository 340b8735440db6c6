"""Which modules are layers, and what it means to compute them twice."""

from typing import Any

import pytest
import torch

from app.runtime.placement import checkpoint_activations, layers_of
from tests.models import test_sequence_models as sequence
from tests.models import test_transformer as transformer

MODELS: dict[str, tuple[Any, int]] = {  # and how many layers they have
    "transformer": (transformer.model, 4),
    "lightconv": (lambda: sequence.build(["lightconv", *sequence.LIGHT]), 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_found(name: str) -> None:
    make, count = MODELS[name]
    assert len(layers_of(make())) == count


@pytest.mark.parametrize("name", MODELS)
def test_layers_that_are_computed_twice_have_the_same_gradients(name: str) -> None:
    gradients, calls = [], []
    for twice in (False, True):
        model = MODELS[name][0]().train()
        seen: list[int] = []
        for layer in layers_of(model):
            next(layer.children()).register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        if twice:
            checkpoint_activations(model)
        torch.manual_seed(1)
        tokens = torch.randint(4, 20, (2, 5))
        model.decode(tokens, model.encode(tokens, torch.tensor([5, 5]))).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
        calls.append(len(seen))
    torch.testing.assert_close(*gradients)
    assert calls[1] == 2 * calls[0]

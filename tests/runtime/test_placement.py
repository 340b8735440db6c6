"""Which modules are layers, and what it means to compute them twice."""

import os
import subprocess
import sys
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


def test_threads_that_wait_are_told_to_sleep_before_torch_is_there() -> None:
    code = "import app, os, sys; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    free = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    found = subprocess.run([sys.executable, "-c", code], env=free, capture_output=True, text=True, check=True)
    assert int(found.stdout) <= 1000

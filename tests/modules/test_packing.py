"""Packed weights compute what the layers they replace compute."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from app.modules.attention import KeyValues, MultiheadAttention
from app.modules.packing import PackedLinear, packed
from app.plugins import configure
from benchmarks.speed import MODELS, model_values
from tests.search.toy import VOCABULARY, batch, config

ERRORS = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.05}  # of outputs of size 1


def transformer() -> nn.Module:
    from app.models.transformer import Transformer

    task: Any = SimpleNamespace(source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY)
    torch.manual_seed(1)
    model: Transformer = configure(model_values(MODELS["A"]), "app.interfaces.Model")(task)
    return model.eval()


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_a_layer_computes_the_same(precision: str, bias: bool, relu: bool) -> None:
    torch.manual_seed(1)
    linear, x = nn.Linear(64, 48, bias=bias), torch.randn(3, 5, 64)
    with torch.inference_mode():
        expected = linear(x)
        layer = PackedLinear(linear.bfloat16() if precision == "bf16" else linear, precision, relu=relu)
        found = layer(x.bfloat16() if precision == "bf16" else x).float()
        torch.testing.assert_close(found, expected.relu() if relu else expected, rtol=0, atol=ERRORS[precision])


@pytest.mark.parametrize("precision", ERRORS)
def test_a_model_searches_the_same_and_keeps_its_names(precision: str) -> None:
    from app.search.beam import BeamSearch

    model = transformer()
    fast: Any = copy.deepcopy(model)
    packed(fast, precision)
    assert fast.state_dict().keys() == model.state_dict().keys()
    assert not any(type(module) is nn.Linear for module in fast.modules())
    search = BeamSearch(config(beam=3, nbest=3, min_len=3, max_len_b=6, max_len_a=0), VOCABULARY)
    ours, theirs = (search.generate([each], *batch([[4, 5, 6], [6, 4]])) for each in (fast, model))
    found, expected = ([h.score for row in rows for h in row] for rows in (ours, theirs))
    assert found == pytest.approx(expected, abs=ERRORS[precision] * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_that_were_reordered_have_room_for_the_next(dtype: torch.dtype) -> None:
    cache, rows = KeyValues(), torch.tensor([2, 0, 0])
    steps = [torch.randn(3, 2, 1, 4).to(dtype) for _ in range(40)]
    for step in steps[:-1]:
        cache.append(step, -step)
    cache.select(rows)
    keys, values = cache.append(steps[-1], -steps[-1])
    expected = torch.cat([*(step[rows] for step in steps[:-1]), steps[-1]], dim=2)
    assert torch.equal(keys[:, :, :40], expected)
    assert torch.equal(values[:, :, :40], -expected)
    assert keys.size(2) == (64 if dtype == torch.bfloat16 else 40)
    assert not keys[:, :, 40:].any()
    mask = cache.mask(None)
    assert (mask is None) == (dtype == torch.float32)
    assert mask is None or mask.isneginf().flatten().tolist() == [False] * 40 + [True] * 24


def test_few_queries_attend_in_bf16_as_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    attention, x = MultiheadAttention(16, 2, 0.0).bfloat16(), torch.randn(3, 5, 16).bfloat16()
    mask = torch.ones(3, 1, 1, 5, dtype=torch.bool)
    mask[0, ..., 3:] = False
    found = []
    for many in (0, 10**9):
        monkeypatch.setattr("app.modules.attention.MANY", many)
        with torch.inference_mode():
            found.append(attention(x, mask).float())
    expected = attention.float()(x.float(), mask)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):  # as in validation
        found.append(attention(x.float(), mask).float())
    for each in found:
        torch.testing.assert_close(each, expected, rtol=0, atol=0.03)


def test_only_a_self_attention_has_one_product_for_three() -> None:
    own, other = MultiheadAttention(8, 2, 0.0), MultiheadAttention(8, 2, 0.0, memory_dim=8)
    holder = nn.ModuleList([own, other])
    x = torch.randn(2, 3, 8)
    with torch.inference_mode():
        expected = own(x), other.over(x, x)
        packed(holder, "fp32")
        torch.testing.assert_close((own(x), other.over(x, x)), expected)
    assert own.together is not None
    assert other.together is None

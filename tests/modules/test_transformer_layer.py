"""What our layers have beyond fairseq's: rotary positions, RMSNorm, gated parts, shared keys and values."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from app.modules.attention import MultiheadAttention
from app.modules.positions import rotated
from app.modules.transformer_layer import DecoderLayer, LayerConfig
from app.plugins import configure
from tests.golden.cases import vocabulary

LAYER = LayerConfig(8, 12, 4, True, "relu", 0.0, 0.0, 0.0)


def decoder_layer(cfg: LayerConfig) -> DecoderLayer:
    torch.manual_seed(1)
    layer = DecoderLayer(cfg, cfg.embed_dim, cross_attention=False, cross_self_attention=False)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.eval()


def test_rotation_is_a_product_of_complex_numbers() -> None:
    x = torch.randn(2, 3, 5, 8)
    rates = 10000 ** (-torch.arange(4) / 4)
    turns = torch.polar(torch.ones(5, 4), torch.arange(7, 12)[:, None] * rates)
    expected = torch.complex(x[..., :4], x[..., 4:]) * turns
    torch.testing.assert_close(rotated(x, 7), torch.cat([expected.real, expected.imag], dim=-1))


def test_products_of_rotated_vectors_depend_on_their_distance() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8)

    def product(at: int, other: int) -> Tensor:
        return (rotated(q, at) * rotated(k, other)).sum()

    torch.testing.assert_close(product(3, 1), product(103, 101), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(product(3, 1), product(3, 2))


def test_shared_keys_and_values_are_those_of_full_attention_repeated() -> None:
    shared, full = MultiheadAttention(8, 4, 0.0, kv_heads=2), MultiheadAttention(8, 4, 0.0)
    weights = shared.state_dict()
    for name in ("k_proj", "v_proj"):
        for kind in ("weight", "bias"):
            groups = weights[f"{name}.{kind}"].unflatten(0, (2, 2))
            weights[f"{name}.{kind}"] = groups.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(weights)
    x, memory = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    torch.testing.assert_close(shared(x, causal=True), full(x, causal=True))
    torch.testing.assert_close(shared.over(x, memory), full.over(x, memory))
    torch.testing.assert_close(shared.weights_over(x, memory), full.weights_over(x, memory))


@pytest.mark.parametrize(("name", "activation"), [("swiglu", F.silu), ("geglu", F.gelu)])
def test_gated_feed_forward_with_rms_norm(name: str, activation: Any) -> None:
    layer = decoder_layer(replace(LAYER, activation_fn=name, norm_fn="rms"))
    assert layer.gate is not None
    x = torch.randn(2, 5, 8)
    normed = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * layer.final_layer_norm.weight
    expected = x + layer.fc2(activation(layer.gate(normed)) * layer.fc1(normed))
    torch.testing.assert_close(layer.feed_forward(x), expected)


def test_settings_are_checked() -> None:
    assert list(replace(LAYER, kv_heads=2, rotary_pos=True).check()) == []
    assert "".join(replace(LAYER, kv_heads=3).check()) == "kv_heads=3: must divide attention_heads=4"
    assert "even width, not 1" in "".join(replace(LAYER, attention_heads=8, rotary_pos=True).check())


SMALL = ["model.decoder_layers=2", "model.decoder_embed_dim=16", "model.decoder_ffn_embed_dim=24"]
HEADS = ["model.decoder_attention_heads=4", "model.decoder_kv_heads=2"]


def test_llama_decodes_step_by_step_as_at_once() -> None:
    overrides = ["model=llama_small", *SMALL, *HEADS]
    node = configured_model(overrides)
    task: Any = SimpleNamespace(source_vocabulary=vocabulary(20), target_vocabulary=vocabulary(20))
    torch.manual_seed(1)
    model = configure(node, "app.interfaces.Model", "model")(task).eval()
    tokens = torch.randint(4, 20, (3, 7))
    features, cache = model.decode(tokens), model.new_cache()
    steps = [model.decode(tokens[:, t : t + 1], cache=cache) for t in range(7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), features, rtol=1e-4, atol=1e-5)
    swapped = tokens[:, [1, 0, *range(2, 7)]]
    assert not torch.allclose(model.decode(swapped)[:, -1], features[:, -1], atol=1e-4)  # order matters


def configured_model(overrides: list[str]) -> dict[str, Any]:
    """The model's node, composed and resolved."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from app.cli import store_schema
    from app.compose import CONF

    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose("train", overrides).model
        found = OmegaConf.to_container(node, resolve=True)
    assert isinstance(found, dict)
    return {str(k): v for k, v in found.items()}


def test_transformer_modern_decodes_step_by_step_as_at_once() -> None:
    sizes = ["layers=2", "embed_dim=16", "ffn_embed_dim=24", "attention_heads=4", "kv_heads=2"]
    overrides = [f"model.encoder_{size}" for size in sizes] + ["model.decoder_layers=2"]
    task: Any = SimpleNamespace(source_vocabulary=vocabulary(20), target_vocabulary=vocabulary(20))
    torch.manual_seed(1)
    node = configured_model(["model=transformer_modern", *overrides])
    model = configure(node, "app.interfaces.Model", "model")(task).eval()
    source, tokens = torch.randint(4, 20, (3, 5)), torch.randint(4, 20, (3, 7))
    encoder_out = model.encode(source, torch.full((3,), 5))
    padded = model.encode(F.pad(source, (2, 0), value=1), torch.full((3,), 5))
    torch.testing.assert_close(padded.states[:, 2:], encoder_out.states, rtol=1e-4, atol=1e-5)
    features, cache = model.decode(tokens, encoder_out), model.new_cache()
    steps = [model.decode(tokens[:, t : t + 1], encoder_out, cache) for t in range(7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), features, rtol=1e-4, atol=1e-5)

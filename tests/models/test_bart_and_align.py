"""BART's presets and start, and alignments that see the whole target or not."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from app.cli import store_schema
from app.compose import CONF
from app.errors import ConfigError
from app.plugins import configure
from app.runtime.placement import layers_of
from tests.golden.cases import vocabulary

NAMED = {  # layers of each side, width, feed-forward width, heads, whether embeddings are scaled, and normed
    "bart": (12, 1024, 4096, 16, False, True),
    "bart_large": (12, 1024, 4096, 16, False, True),
    "bart_base": (6, 768, 3072, 12, False, True),
    "mbart_large": (12, 1024, 4096, 16, True, True),
    "mbart_base": (6, 768, 3072, 12, True, True),
    "mbart_base_wmt20": (6, 768, 3072, 12, True, False),
}
SMALL = ["model.encoder_layers=2", "model.encoder_embed_dim=16", "model.encoder_ffn_embed_dim=24"]
SMALL += ["model.encoder_attention_heads=4", "model.decoder_layers=2"]


def values(*overrides: str) -> Any:
    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("train", ["task.data=null", *overrides]).model, resolve=True)


def made(*overrides: str, heads: dict[str, int] | None = None) -> Any:
    words = vocabulary(20)
    task = SimpleNamespace(source_vocabulary=words, target_vocabulary=words, classification_heads=heads or {})
    torch.manual_seed(1)
    return configure(values(*overrides, *SMALL), "app.interfaces.Model", "model")(task).eval()


@pytest.mark.parametrize("name", NAMED)
def test_presets(name: str) -> None:
    model = values(f"model={name}", "task.max_source_positions=1024")
    for side in ("encoder", "decoder"):
        found = [model[f"{side}_{key}"] for key in ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")]
        assert (*found, not model["no_scale_embedding"], model["layernorm_embedding"]) == NAMED[name]
        assert model[f"{side}_learned_pos"]
        assert not model[f"{side}_normalize_before"]
    assert model["share_all_embeddings"]
    assert (model["activation_fn"], model["pooler_activation_fn"]) == ("gelu", "tanh")


def test_bart_starts_as_bert_does() -> None:
    model = made("model=bart", heads={"kind": 3})
    weights = model.encoder.layers[0].fc1.weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.15)
    assert not model.encoder.embed_tokens.weight[1].any()
    assert not model.encoder.layers[0].fc1.bias.any()
    assert model.classification_heads["kind"].out_proj.weight.shape == (3, 16)


def test_an_alignment_comes_from_the_layer_of_that_number() -> None:
    model = made("model=transformer_align", "model.alignment_layer=1", "model.decoder_layers_to_keep=[1]")
    memory = model.encode(torch.tensor([[5, 6, 2]]), torch.tensor([3]))
    assert model.cross_attention(torch.tensor([[2, 8]]), memory).shape == (1, 2, 3)
    with pytest.raises(ConfigError, match=r"alignment_layer=0: must be one of decoder_layers_to_keep=\[1\]"):
        made("model=transformer_align", "model.alignment_layer=0", "model.decoder_layers_to_keep=[1]")


def test_layers_are_called_where_they_align_too() -> None:
    """What is hung on to a layer's call, as its weights' gathering is in distributed=fsdp, happens then too."""
    model, called = made("model=transformer_align", "model.alignment_layer=0"), []
    for layer in layers_of(model):
        layer.register_forward_pre_hook(lambda *_: called.append(1))
    source, target = torch.tensor([[5, 6, 2]]), torch.tensor([[2, 8]])
    batch: Any = SimpleNamespace(src_tokens=source, src_lengths=torch.tensor([3]), prev_output_tokens=target)
    model.features_and_attention(batch)
    assert len(called) == len(layers_of(model)) > 1


@pytest.mark.parametrize("full_context", [False, True])
def test_what_an_alignment_sees(full_context: bool) -> None:
    model = made("model=transformer_align", "model.alignment_layer=0", f"model.full_context_alignment={full_context}")
    source, lengths = torch.tensor([[5, 6, 7, 2]]), torch.tensor([4])
    first, changed = torch.tensor([[2, 8, 9, 10]]), torch.tensor([[2, 8, 9, 11]])
    encoder_out = model.encode(source, lengths)
    one, other = (model.cross_attention(tokens, encoder_out)[0, 1] for tokens in (first, changed))
    assert torch.equal(one, other) is not full_context
    batch: Any = SimpleNamespace(src_tokens=source, src_lengths=lengths, prev_output_tokens=first)
    features, attention = model.features_and_attention(batch)
    torch.testing.assert_close(features, model.decode(first, encoder_out))
    torch.testing.assert_close(attention[0, 1], one)
    padded = torch.tensor([[2, 8, 9, 10, 1, 1]])
    torch.testing.assert_close(model.cross_attention(padded, encoder_out)[:, :4], attention)


@pytest.mark.parametrize(
    ("fault", "override"),
    [
        ("model.alignment_layer=2: must lie between 0 and 1", "model.alignment_layer=2"),
        ("model.alignment_heads=5: must lie between 1 and 4", "model.alignment_heads=5"),
        ("alignments need plain attention to the source", "model.cross_self_attention=true"),
    ],
)
def test_faults(fault: str, override: str) -> None:
    layer = [] if "layer=" in override else ["model.alignment_layer=1"]
    with pytest.raises(ConfigError) as error:
        made("model=transformer_align", *layer, override)
    assert fault in str(error.value)


def test_taught_attention_trains_every_part_before_it() -> None:
    """The alignment's loss reaches the aligned layer's queries and keys, and nothing behind them."""
    model = made("model=transformer_align", "model.alignment_layer=0")
    tokens = torch.tensor([[2, 8, 9]])
    attention = model.cross_attention(tokens, model.encode(torch.tensor([[5, 6, 2]]), torch.tensor([3])))
    attention[..., 0].log().sum().backward()
    first, second = model.decoder.layers
    assert first.encoder_attn.q_proj.weight.grad.any()
    assert not first.encoder_attn.v_proj.weight.grad.any()
    assert second.fc1.weight.grad is None

"""The Transformer's options, one by one, and its named architectures as numbers in a table."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from app.cli import store_schema
from app.compose import CONF
from app.interfaces import EncoderOut, Model
from app.models.transformer import Transformer, TransformerConfig
from app.plugins import configure
from tests.golden.cases import vocabulary

PAD = 1
SMALL = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 4,
}


def config(**changes: Any) -> TransformerConfig:
    """`conf/model/transformer.yaml`, small, with these changes."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in (SMALL | changes).items()}
    overrides = [f"model.{key}={value}".replace(" ", "") for key, value in values.items()]
    return composed(*overrides)


def composed(*overrides: str) -> TransformerConfig:
    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose("train", list(overrides))
    values: Any = OmegaConf.to_container(node.model, resolve=True)
    cfg: TransformerConfig = configure(values, Model).args[0]  # type: ignore[attr-defined]
    return cfg


def frozen(changes: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in changes.items())


@cache
def config_of(changes: tuple[tuple[str, Any], ...]) -> TransformerConfig:
    return config(**dict(changes))


def model(**changes: Any) -> Transformer:
    torch.manual_seed(1)
    words = vocabulary(40)
    built = Transformer(config_of(frozen(changes)), SimpleNamespace(source_vocabulary=words, target_vocabulary=words))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return built.eval()


def source() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    tokens = torch.randint(4, 40, (2, 6))
    tokens[:, -1] = 2
    tokens[1, 4:] = torch.tensor([2, PAD])
    return tokens, torch.tensor([6, 5])


OPTIONS: list[dict[str, Any]] = [
    {},
    {"encoder_normalize_before": True},
    {"encoder_normalize_before": True, "no_decoder_final_norm": True},
    {"encoder_learned_pos": True},
    {"no_cross_attention": True},
    {"cross_self_attention": True},
    {"cross_self_attention": True, "no_cross_attention": True},
    {"layernorm_embedding": True, "no_scale_embedding": True},
    {"no_token_positional_embeddings": True},
    {"share_all_embeddings": True},
    {"decoder_embed_dim": 24, "decoder_attention_heads": 3, "decoder_output_dim": 12},
    {"adaptive_softmax_cutoff": [10, 20]},
    {"activation_fn": "gelu"},
    {"rotary_pos": True, "encoder_kv_heads": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "default")
class TestDecoding:
    def test_hypotheses_step_by_step_equal_all_at_once(self, options: dict[str, Any]) -> None:
        """Three hypotheses of each of two sentences, with a cache, and their order changed on the way."""
        ours = model(**options)
        encoder_out = ours.encode(*source())
        torch.manual_seed(3)
        prefix, rest = torch.randint(4, 40, (6, 3)), torch.randint(4, 40, (6, 3))
        order = torch.tensor([1, 1, 0, 5, 4, 3])
        cache = ours.new_cache()
        for step in range(3):
            ours.decode(prefix[:, step : step + 1], encoder_out, cache)
        cache.reorder(order)
        steps = [ours.decode(rest[:, t : t + 1], encoder_out, cache) for t in range(3)]
        whole = torch.cat([prefix[order], rest], dim=1)
        wide = EncoderOut(encoder_out.states.repeat_interleave(3, 0), encoder_out.keep.repeat_interleave(3, 0))
        torch.testing.assert_close(torch.cat(steps, dim=1), ours.decode(whole, wide)[:, 3:], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("learning", [True, False])
    def test_hypotheses_that_came_of_one_share_their_past(self, options: dict[str, Any], learning: bool) -> None:
        """Three of each of two sentences, whose order changes on the way; then the first sentence leaves."""
        ours = model(**options)
        encoder_out = ours.encode(*source())
        torch.manual_seed(3)
        first, rest = torch.randint(4, 40, (2, 1)), torch.randint(4, 40, (6, 3))
        cache, order, stays = ours.new_cache(), torch.tensor([1, 1, 0, 5, 4, 3]), torch.tensor([5, 3, 3])
        wide = EncoderOut(encoder_out.states.repeat_interleave(3, 0), encoder_out.keep.repeat_interleave(3, 0))
        whole = torch.cat([first.repeat_interleave(3, 0), rest[:, :2]], dim=1)[order]
        whole = torch.cat([whole, rest[:, 2:]], dim=1)
        with torch.inference_mode(not learning):
            ours.decode(first, encoder_out, cache)
            cache.reorder(torch.tensor([0, 0, 0, 1, 1, 1]))
            for t in range(2):
                ours.decode(rest[:, t : t + 1], encoder_out, cache)
            assert cache.sharing == 3
            cache.reorder(order)
            found = ours.decode(rest[:, 2:], encoder_out, cache)
            torch.testing.assert_close(found[:, 0], ours.decode(whole, wide)[:, -1], rtol=1e-4, atol=1e-5)
            cache.keep_sentences(torch.tensor([1]))
            cache.reorder(stays)
            found = ours.decode(rest[:3, :1], encoder_out.select(torch.tensor([1])), cache)
            left = torch.cat([whole[stays], rest[:3, :1]], dim=1)
            expected = ours.decode(left, wide.select(stays))
            torch.testing.assert_close(found[:, 0], expected[:, -1], rtol=1e-4, atol=1e-5)

    def test_a_sentence_may_leave(self, options: dict[str, Any]) -> None:
        ours = model(**options)
        encoder_out = ours.encode(*source())
        tokens = torch.tensor([[5, 6], [7, 8]])
        cache = ours.new_cache()
        ours.decode(tokens[:, :1], encoder_out, cache)
        stays = torch.tensor([1])
        cache.keep_sentences(stays)
        cache.reorder(stays)
        alone = ours.decode(tokens[1:, 1:], encoder_out.select(stays), cache)
        expected = ours.decode(tokens[1:], encoder_out.select(stays))[:, 1:]
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)

    def test_the_future_is_not_seen(self, options: dict[str, Any]) -> None:
        ours = model(**options)
        encoder_out = ours.encode(*source())
        tokens = torch.randint(4, 40, (2, 7))
        changed = tokens.clone()
        changed[:, 4:] = 9
        before, after = ours.decode(tokens, encoder_out), ours.decode(changed, encoder_out)
        torch.testing.assert_close(before[:, :4], after[:, :4])
        assert not torch.allclose(before[:, 4:], after[:, 4:])

    def test_the_source_matters(self, options: dict[str, Any]) -> None:
        ours, (tokens, lengths) = model(**options), source()
        other = tokens.clone()
        other[:, 0] = 39
        features = [ours.decode(torch.tensor([[2, 5]] * 2), ours.encode(each, lengths)) for each in (tokens, other)]
        blind = options.get("no_cross_attention") and not options.get("cross_self_attention")
        assert torch.equal(*features) == bool(blind)

    def test_scores_are_of_all_words(self, options: dict[str, Any]) -> None:
        ours = model(**options)
        scores = ours.project(ours.decode(torch.tensor([[2, 5]] * 2), ours.encode(*source())))
        assert scores.shape == (2, 2, 40)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_acts_in_training_only(rate: str) -> None:
    ours = model(**({"dropout": 0.0} | {rate: 0.5}))
    tokens, (src_tokens, src_lengths) = torch.tensor([[2, 5, 6]] * 2), source()

    def features() -> torch.Tensor:
        return ours.decode(tokens, ours.encode(src_tokens, src_lengths))

    assert torch.equal(features(), features())
    ours.train()
    assert not torch.equal(features(), features())


def test_adaptive_softmax_drops_out_too() -> None:
    ours = model(adaptive_softmax_cutoff=[10, 20], adaptive_softmax_dropout=0.5).train()
    features = torch.randn(3, 16)
    assert not torch.equal(ours.project(features), ours.project(features))
    assert torch.allclose(ours.eval().project(features).exp().sum(-1), torch.ones(3))


def test_final_norm_can_be_left_out() -> None:
    assert model(encoder_normalize_before=True).decoder.layer_norm is not None
    assert model(encoder_normalize_before=True, no_decoder_final_norm=True).decoder.layer_norm is None


ARCHITECTURES = {  # layers, width, feed-forward, heads, pre-norm, dropout, attention dropout, activation dropout
    "transformer": (6, 512, 2048, 8, False, 0.1, 0.0, 0.0),
    "transformer_wmt_en_de": (6, 512, 2048, 8, False, 0.1, 0.0, 0.0),
    "transformer_tiny": (2, 64, 64, 2, False, 0.1, 0.0, 0.0),
    "transformer_iwslt_de_en": (6, 512, 1024, 4, False, 0.1, 0.0, 0.0),
    "transformer_vaswani_wmt_en_de_big": (6, 1024, 4096, 16, False, 0.3, 0.0, 0.0),
    "transformer_big": (6, 1024, 4096, 16, False, 0.3, 0.0, 0.0),
    "transformer_vaswani_wmt_en_fr_big": (6, 1024, 4096, 16, False, 0.1, 0.0, 0.0),
    "transformer_wmt_en_de_big": (6, 1024, 4096, 16, False, 0.3, 0.1, 0.0),
    "transformer_wmt_en_de_big_t2t": (6, 1024, 4096, 16, True, 0.3, 0.1, 0.1),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_named_architecture(name: str) -> None:
    cfg = composed(f"model={name}")
    for side in ("encoder", "decoder"):
        fields = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads", "normalize_before")
        sizes = tuple(getattr(cfg, f"{side}_{field}") for field in fields)
        assert sizes + (cfg.dropout, cfg.attention_dropout, cfg.activation_dropout) == ARCHITECTURES[name]
    assert cfg.activation_fn == "relu"
    for field in ("share_all_embeddings", "share_decoder_input_output_embed", "encoder_learned_pos"):
        assert getattr(cfg, field) is False

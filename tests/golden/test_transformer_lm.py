"""The real fairseq's language models: its weights give its scores and gradients; NormFormer by its definition."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from app.models.transformer_lm import TransformerLM, TransformerLMConfig
from app.modules.adaptive_input import AdaptiveInput
from app.modules.attention import MultiheadAttention
from app.modules.transformer_layer import DecoderLayer, LayerConfig
from tests.golden.cases import LAYER_DROP, OURS, Case, claimed, vocabulary

RELATIVE = 1e-4
SCALES = {"scale_fc": "ffn_layernorm", "scale_attn": "attn_ln", "scale_heads": "c_attn", "scale_resids": "w_resid"}
UNREAD = ("version", "_float_tensor")


class OneVocabulary:
    def __init__(self, size: int):
        self.source_vocabulary = self.target_vocabulary = vocabulary(size)


def config(case: Case) -> TransformerLMConfig:
    given = OURS | LAYER_DROP | case.spec["model_config"]
    for name in ("adaptive_input_cutoff", "adaptive_softmax_cutoff"):
        if isinstance(given[name], str):
            given[name] = [int(word) for word in given[name].split(",")]
    for scale, parameter in SCALES.items():  # fairseq takes these options and ignores them: its weights say so
        given[scale] &= any(f".{parameter}" in name for name in case.under("param"))
    given["max_target_positions"] = given["max_target_positions"] or given["tokens_per_sample"]
    return TransformerLMConfig(**{f.name: given[f.name] for f in fields(TransformerLMConfig)})


def language_model(case: Case) -> TransformerLM:
    cfg = config(case)
    assert not list(cfg.check())
    task: Any = OneVocabulary(case.spec["dict"]["size"])
    model = TransformerLM(cfg, task)
    model.load_state_dict({k: v for k, v in case.under("param").items() if not k.endswith(UNREAD)}, strict=True)
    return model.eval()


def logits_of(model: TransformerLM, features: Tensor) -> Tensor:
    """What fairseq's decoder returns: features where the softmax is adaptive."""
    return features if model.output_projection is None else model.project(features)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=RELATIVE, atol=1e-5)


@pytest.mark.parametrize("case", claimed("models", "transformer_lm*"))
class TestTransformerLM:
    def test_outputs(self, case: Any) -> None:
        model, out, target = language_model(case), case.under("out"), case.tensors["in/target"]
        real = target.ne(1)
        features = model.decode(case.tensors["in/src_tokens"])
        close(logits_of(model, features)[real], out["logits"][real])
        ours = model.project(features).log_softmax(-1)
        close(ours.gather(-1, target[..., None])[real], out["lprobs"].gather(-1, target[..., None])[real])
        close(ours[real].exp().sum(-1), torch.ones(int(real.sum())))

    def test_tied_parameters(self, case: Any) -> None:
        parameters = language_model(case).state_dict(keep_vars=True)
        for first, *others in case.spec["tied_parameters"]:
            assert all(parameters[name] is parameters[first] for name in others)
        assert sum(p.numel() for p in {id(p): p for p in parameters.values()}.values()) == case.spec["num_parameters"]

    def test_gradients(self, case: Any) -> None:
        model = language_model(case)
        logits = logits_of(model, model.decode(case.tensors["in/src_tokens"]))
        (logits * case.tensors["grad/R"]).sum().backward()
        ours = {name: as_in_fairseq(name, p.grad, model) for name, p in model.named_parameters() if p.grad is not None}
        for name, norm in case.spec["grad_norms"].items():
            if norm > 1e-4:
                assert float(ours[name].norm()) == pytest.approx(norm, rel=RELATIVE), name
        for name in case.spec["grads_in_full"]:
            close(ours[name], case.tensors[f"grad/{name}"])

    def test_decoding_step_by_step_equals_decoding_at_once(self, case: Any) -> None:
        model, tokens = language_model(case), case.tensors["in/src_tokens"]
        features, cache = model.decode(tokens), model.new_cache()
        steps = [model.decode(tokens[:, t : t + 1], cache=cache) for t in range(tokens.size(1))]
        real = tokens.ne(1)
        close(torch.cat(steps, dim=1)[real], features[real])


def as_in_fairseq(name: str, grad: Tensor, model: TransformerLM) -> Tensor:
    """fairseq keeps word `pad` of every band from learning, not of the first alone."""
    bands = model.decoder.embed_tokens
    words = name.startswith("decoder.embed_tokens.embeddings.") and name.endswith(".0.weight")
    if isinstance(bands, AdaptiveInput) and words and len(grad) > bands.padding_idx:
        grad = grad.clone()
        grad[bands.padding_idx] = 0
    return grad


LAYER = LayerConfig(8, 12, 2, True, "relu", 0.0, 0.0, 0.0)


def test_normformer_scales_are_the_papers() -> None:
    torch.manual_seed(1)
    layer = DecoderLayer(
        replace(LAYER, **dict.fromkeys(SCALES, True)), 8, cross_attention=False, cross_self_attention=False
    )
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 8)
    attention: MultiheadAttention = layer.self_attn
    normed = layer.self_attn_layer_norm(x)
    q, k, v = (
        p(normed).view(2, 5, 2, 4).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    heads = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True) * layer.c_attn.view(1, 2, 1, 1)
    y = x + layer.attn_ln(attention.out_proj(heads.transpose(1, 2).flatten(2)))
    inner = layer.ffn_layernorm(layer.fc1(layer.final_layer_norm(y)).relu())
    close(layer(x, None, None), layer.w_resid * y + layer.fc2(inner))

"""The translation Transformer as a CTranslate2 model (github.com/OpenNMT/CTranslate2).

Nothing here is known of the model's class: parameters are found by their names in the state dict, which are fairseq's.
What CTranslate2 cannot express is refused by the option's name, and what was written is compared with the model.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from app.assembly import Restored
from app.data.vocabulary import Vocabulary
from app.errors import CheckpointError, ConfigError
from app.interfaces import Model
from app.search.forced import score_reference

TARGET = "app.models.transformer.Transformer"
ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "gelu_accurate": "GELUTanh", "gelu_fast": "GELUTanh", "swish": "SWISH"}
NEUTRAL = {  # options that CTranslate2 does not have, with the value that asks for nothing
    "adaptive_softmax_cutoff": None,
    "no_cross_attention": False,
    "cross_self_attention": False,
    "norm_fn": "layer",
    "rotary_pos": False,
    "encoder_kv_heads": None,
    "decoder_kv_heads": None,
}
NEUTRAL_OF_TASK = {  # what else than pieces and eos stands in a sentence
    "prepend_bos": False,
    "langs": None,
    "encoder_langtok": None,
    "decoder_langtok": False,
}
PAD = "<blank>"  # what CTranslate2 calls <pad>


def need_ctranslate2(key: str) -> Any:
    """The package, or a `ConfigError` that says how to get it."""
    try:
        import ctranslate2
    except ModuleNotFoundError:
        raise ConfigError([f"{key}=ctranslate2: needs a package; pip install 'seqwright[ctranslate2]'"]) from None
    return ctranslate2


def faults(cfg: Mapping[str, Any]) -> Iterator[str]:
    """What of a model's values cannot be expressed."""
    if cfg.get("_target_") != TARGET:
        yield f"model._target_={cfg.get('_target_')}: CTranslate2 is given {TARGET} only"
        return
    for name, neutral in NEUTRAL.items():
        if cfg.get(name, neutral) != neutral:
            yield f"model.{name}={cfg[name]}: CTranslate2 does not have it"
    if cfg["activation_fn"] not in ACTIVATIONS:
        yield f"model.activation_fn={cfg['activation_fn']}: CTranslate2 has {', '.join(ACTIVATIONS)}"
    if cfg["decoder_output_dim"] != cfg["decoder_embed_dim"]:
        yield f"model.decoder_output_dim={cfg['decoder_output_dim']}: must be decoder_embed_dim in CTranslate2"


def faults_of_task(cfg: Mapping[str, Any]) -> Iterator[str]:
    """What of a task's sentences CTranslate2 would not be given: it puts eos alone around the pieces."""
    for name, neutral in NEUTRAL_OF_TASK.items():
        if cfg.get(name, neutral) != neutral:
            yield f"task.{name}={cfg[name]}: CTranslate2 is not told of it here"


def export(restored: Restored, directory: Path) -> None:
    """Write the model into the existing `directory`.

    Raises `ConfigError` for what cannot be expressed, and `CheckpointError` where CTranslate2 computes something else
    than the model does.
    """
    need_ctranslate2("format")
    if found := [*faults(restored.cfg.model), *faults_of_task(restored.cfg.task)]:
        raise ConfigError(found)
    spec = specification(restored)
    spec.validate()
    spec.optimize()
    spec.save(str(directory))
    compare(restored, directory)


def specification(restored: Restored) -> Any:
    """CTranslate2's description of the model, with its weights."""
    from ctranslate2.specs import TransformerSpec, common_spec, transformer_spec

    cfg, weights = restored.cfg.model, Weights(restored.model)
    sides = {}
    for side, kind in (
        ("encoder", transformer_spec.TransformerEncoderSpec),
        ("decoder", transformer_spec.TransformerDecoderSpec),
    ):
        sides[side] = kind(
            len(getattr(restored.model, side).layers),
            cfg[f"{side}_attention_heads"],
            pre_norm=cfg[f"{side}_normalize_before"],
            no_final_norm=f"{side}.layer_norm.weight" not in weights.tensors,
            activation=common_spec.Activation[ACTIVATIONS[cfg["activation_fn"]]],
            layernorm_embedding=cfg["layernorm_embedding"],
        )
        weights.fill_side(sides[side], side, restored.model)
    weights.linear(sides["decoder"].projection, "decoder.output_projection")
    spec = TransformerSpec(sides["encoder"], sides["decoder"])
    spec.register_source_vocabulary(symbols(restored.task.source_vocabulary))
    spec.register_target_vocabulary(symbols(restored.task.target_vocabulary))
    spec.config.decoder_start_token = spec.config.eos_token
    spec.config.add_source_eos = True
    return spec


def symbols(vocabulary: Vocabulary) -> list[str]:
    """The pieces under CTranslate2's names."""
    return [PAD if number == vocabulary.pad else piece for number, piece in enumerate(vocabulary.pieces)]


class Weights:
    """A model's parameters, put into the places of CTranslate2's specification."""

    def __init__(self, model: torch.nn.Module):
        self.tensors = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}

    def fill_side(self, spec: Any, side: str, model: Model) -> None:
        """The encoder or the decoder, all but the output projection."""
        module: Any = getattr(model, side)
        embeddings = spec.embeddings[0] if isinstance(spec.embeddings, list) else spec.embeddings
        embeddings.weight = self.tensors[f"{side}.embed_tokens.weight"]
        spec.scale_embeddings = module.scale
        spec.position_encodings.encodings = self.positions(
            module, model.max_positions[side == "decoder"], embeddings.weight.shape[1]
        )
        for norm in ("layer_norm", "layernorm_embedding"):
            if f"{side}.{norm}.weight" in self.tensors:
                self.norm(getattr(spec, norm), f"{side}.{norm}")
        for layer, (number, _) in zip(spec.layer, module.layers.named_children(), strict=True):
            self.fill_layer(layer, f"{side}.layers.{number}")

    def positions(self, module: Any, count: int, dim: int) -> Any:
        """[count, dim] from the first that a token can have; zeros where the model has none."""
        rows = torch.arange(count) + module.padding_idx + 1
        table = torch.zeros(len(rows), dim) if module.embed_positions is None else module.embed_positions(rows[None])[0]
        return table.detach().float().cpu().numpy()

    def fill_layer(self, spec: Any, name: str) -> None:
        """Self-attention, attention to the encoder where there is one, and the feed-forward part."""
        self.attention(spec.self_attention, f"{name}.self_attn", fused=("q", "k", "v"))
        if f"{name}.encoder_attn.q_proj.weight" in self.tensors:
            self.linear(spec.attention.linear[0], f"{name}.encoder_attn.q_proj")
            self.attention(spec.attention, f"{name}.encoder_attn", fused=("k", "v"), at=1)
        self.norm(spec.ffn.layer_norm, f"{name}.final_layer_norm")
        self.linear(spec.ffn.linear_0, f"{name}.fc1")
        self.linear(spec.ffn.linear_1, f"{name}.fc2")

    def attention(self, spec: Any, name: str, fused: tuple[str, ...], at: int = 0) -> None:
        """Projections that stand in one matrix, in the attention's `linear[at]`; the output's; and the norm."""
        from ctranslate2.converters.utils import fuse_linear
        from ctranslate2.specs.common_spec import LinearSpec

        parts = [LinearSpec() for _ in fused]
        for part, letter in zip(parts, fused):
            self.linear(part, f"{name}.{letter}_proj")
        fuse_linear(spec.linear[at], parts)
        self.linear(spec.linear[-1], f"{name}.out_proj")
        self.norm(spec.layer_norm, f"{name}_layer_norm")

    def linear(self, spec: Any, name: str) -> None:
        spec.weight = self.tensors[f"{name}.weight"]
        if f"{name}.bias" in self.tensors:
            spec.bias = self.tensors[f"{name}.bias"]

    def norm(self, spec: Any, name: str) -> None:
        spec.gamma, spec.beta = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]


def compare(restored: Restored, directory: Path) -> None:
    """Raise `CheckpointError` where the written model thinks otherwise than ours of some random outputs."""
    import ctranslate2

    model, (source, target) = restored.model, (restored.task.source_vocabulary, restored.task.target_vocabulary)
    draw = torch.Generator().manual_seed(1)
    sides = [torch.randint(4, len(side), (3, 7), generator=draw) for side in (source, target)]
    pieces = [[[side.pieces[i] for i in row] for row in ids.tolist()] for side, ids in zip((source, target), sides)]
    sides = [torch.tensor([side.encode(row).tolist() for row in rows]) for side, rows in zip((source, target), pieces)]
    device = next(model.parameters()).device
    src, tgt = (ids.to(device) for ids in sides)
    lengths = torch.full((len(src),), src.size(1), device=device)
    ours = score_reference([model], src, lengths, tgt, target.eos, target.pad)
    theirs = ctranslate2.Translator(str(directory), compute_type="float32").score_batch(*pieces)
    for mine, other in zip(ours, theirs):
        if not torch.allclose(mine.positional_scores, torch.tensor(other.log_probs), rtol=1e-3, atol=1e-3):
            raise CheckpointError(f"{restored.run_dir}: CTranslate2 gives other scores than this model; not exported")

"""Names of parameters: ours are fairseq's, so what is here is what older versions of fairseq called otherwise."""

import re
from collections.abc import Mapping

from torch import Tensor

UNREAD = (".version", "._float_tensor", ".embed_positions.weights")  # buffers that nothing reads
UNREAD_PARAMETERS = {  # family -> parameters that fairseq makes and never uses
    "lstm": ("decoder.additional_fc.weight", "decoder.additional_fc.bias"),
    "lstm_lm": ("decoder.additional_fc.weight", "decoder.additional_fc.bias"),
    "lightconv": (".conv_bias",),
    "lightconv_lm": (".conv_bias",),
}
RENAMED = (  # as fairseq itself renames when it loads
    (r"(encoder\.layers\.\d+)\.layer_norms\.0\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.layer_norms\.1\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.layer_norms\.0\.", r"\1.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.layer_norms\.1\.", r"\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.layer_norms\.2\.", r"\1.final_layer_norm."),
    (r"^decoder\.embed_out$", "decoder.output_projection.weight"),
)
OF_FAMILY = {"roberta": ((r"^decoder\.", "encoder."),)}
FUSED = re.compile(r"(.*)\.in_proj_(weight|bias)$")


def unread(name: str, family: str, own: Mapping[str, Tensor]) -> bool:
    """Whether nothing depends on what is stored under this name; `own` are the model's weights here.

    Classification heads that the task does not ask for are left out, as fairseq does.
    """
    if name in own:
        return False
    return name.endswith((*UNREAD, *UNREAD_PARAMETERS.get(family, ()))) or name.startswith("classification_heads.")


def renamed(name: str, family: str) -> str:
    """fairseq's newest name of a parameter."""
    for pattern, replacement in (*RENAMED, *OF_FAMILY.get(family, ())):
        name = re.sub(pattern, replacement, name)
    return name


def as_here(weights: Mapping[str, Tensor], family: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by our names. Queries, keys and values, which old versions hold in one matrix, are parted."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if unread(name, family, own):
            continue
        if fused := FUSED.match(name):
            for part, share in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
                found[f"{renamed(fused[1], family)}.{part}.{fused[2]}"] = share
        else:
            found[renamed(name, family)] = tensor
    return found

"""The families beside the Transformer, with the options that no golden case has, and with sizes that do not fit."""

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from app.cli import store_schema
from app.compose import CONF
from app.errors import ConfigError
from app.interfaces import Model
from app.plugins import configure
from tests.golden.cases import vocabulary
from tests.golden.zoo import PAD, close

SIDES = ["encoder_embed_dim=16", "decoder_embed_dim=16"]
LIGHT = [*SIDES, "encoder_layers=2", "decoder_layers=2", "encoder_attention_heads=4", "encoder_ffn_embed_dim=24"]
LIGHT += ["encoder_kernel_size_list=[4,3]", "decoder_kernel_size_list=[2,7]"]
OPTIONS = {
    "lstm, one matrix": ["lstm", *SIDES, "decoder_out_embed_dim=16", "share_all_embeddings=true"],
    "lstm, wide encoder": ["lstm", *SIDES, "decoder_out_embed_dim=8", "encoder_hidden_size=24"],
    "fconv, one matrix": ["fconv", *SIDES, "encoder_layers=[[16,2]]", "decoder_layers=[[16,2],[24,3,2]]"]
    + ["decoder_out_embed_dim=16", "share_input_output_embed=true"],
    "fconv, some attend": ["fconv", *SIDES, "encoder_layers=[[16,3]]", "decoder_layers=[[16,2],[24,3]]"]
    + ["decoder_attention=[false,true]"],
    "lightconv, one matrix": ["lightconv", *LIGHT, "share_all_embeddings=true"],
    "lightconv, other widths": ["lightconv", *LIGHT, "decoder_output_dim=12", "decoder_input_dim=20"]
    + ["encoder_conv_dim=8", "encoder_normalize_before=true", "weight_softmax=false", "decoder_conv_type=lightweight"],
    "lightconv, adaptive": ["lightconv", *LIGHT, "adaptive_softmax_cutoff=[10,15]"],
    "lstm_lm, one matrix": ["lstm_lm", "decoder_embed_dim=16", "decoder_out_embed_dim=16"]
    + ["share_decoder_input_output_embed=true", "decoder_layers=2"],
}
FAULTS = {
    "model.encoder_layers=2: must equal decoder_layers=1": ["lstm", "encoder_layers=2"],
    "share_decoder_input_output_embed must be true": [
        "lstm",
        "share_all_embeddings=true",
        "share_decoder_input_output_embed=false",
    ],
    "must be rising numbers of words": ["lstm", "adaptive_softmax_cutoff=[20,10]"],
    "model.adaptive_softmax_cutoff=[10, 30]: the vocabulary has 20 words": ["lstm", "adaptive_softmax_cutoff=[10,30]"],
    "model.adaptive_input_cutoff=[30]: the vocabulary has 20 words": ["transformer_lm", "adaptive_input=true"]
    + ["adaptive_input_cutoff=[30]"],
    "layer 1 is [16, 3, 3]: its residual must come from 1 to 2": ["fconv", "encoder_layers=[[16,3],[16,3,3]]"],
    "layer 0 is [16]: must be [channels, width]": ["fconv_lm", "decoder_layers=[[16]]"],
    "must have one entry for each": ["fconv", "decoder_attention=[true]"],
    "must equal encoder_embed_dim=512": ["fconv", "decoder_embed_dim=256"],
    "must be 2 sizes of 1 or more": ["lightconv", "encoder_layers=2"],
    "must be one of lightweight, dynamic": ["lightconv_lm", "decoder_conv_type=fast"],
    "decoder_attention_heads=3: must divide": ["lightconv_lm", "decoder_attention_heads=3"],
}


NAMED = {  # the numbers of fairseq's architectures
    "lstm": {"encoder_embed_dim": 512, "encoder_hidden_size": 512, "decoder_out_embed_dim": 512}
    | {"encoder_layers": 1, "encoder_dropout_in": 0.1, "decoder_dropout_out": 0.1, "encoder_bidirectional": False},
    "lstm_wiseman_iwslt_de_en": {"encoder_embed_dim": 256, "encoder_hidden_size": 256, "decoder_hidden_size": 256}
    | {"decoder_out_embed_dim": 256, "encoder_dropout_in": 0.0, "encoder_dropout_out": 0.0}
    | {"decoder_dropout_in": 0.0, "decoder_dropout_out": 0.1},
    "lstm_luong_wmt_en_de": {"encoder_layers": 4, "decoder_layers": 4, "encoder_hidden_size": 1000}
    | {"decoder_embed_dim": 1000, "decoder_hidden_size": 1000, "decoder_out_embed_dim": 1000}
    | {"encoder_dropout_in": 0.1, "decoder_dropout_in": 0.1, "encoder_dropout_out": 0.0, "decoder_dropout_out": 0.0},
    "lstm_lm": {"decoder_layers": 1, "decoder_embed_dim": 512, "decoder_hidden_size": 512},
    "fconv": {"encoder_embed_dim": 512, "decoder_embed_dim": 512, "decoder_out_embed_dim": 256, "dropout": 0.1}
    | {"encoder_layers": [[512, 3]] * 20, "decoder_layers": [[512, 3]] * 20},
    "fconv_iwslt_de_en": {"decoder_embed_dim": 256, "decoder_out_embed_dim": 256}
    | {"encoder_layers": [[256, 3]] * 4, "decoder_layers": [[256, 3]] * 3},
    "fconv_wmt_en_ro": {"decoder_out_embed_dim": 512, "encoder_embed_dim": 512},
    "fconv_wmt_en_de": {"encoder_embed_dim": 768, "decoder_embed_dim": 768, "decoder_out_embed_dim": 512}
    | {"decoder_layers": [[512, 3]] * 9 + [[1024, 3]] * 4 + [[2048, 1]] * 2},
    "fconv_wmt_en_fr": {"encoder_embed_dim": 768, "decoder_embed_dim": 768, "decoder_out_embed_dim": 512}
    | {"decoder_layers": [[512, 3]] * 6 + [[768, 3]] * 4 + [[1024, 3]] * 3 + [[2048, 1], [4096, 1]]},
    "fconv_lm": {"decoder_embed_dim": 128, "decoder_layers": [[1268, 4]] * 13},
    "fconv_lm_dauphin_wikitext103": {"decoder_embed_dim": 280, "adaptive_softmax_cutoff": [10000, 20000, 200000]}
    | {
        "decoder_layers": [[850, 6]] * 3
        + [[850, 1]]
        + [[850, 5]] * 4
        + [[850, 1]]
        + [[850, 4]] * 3
        + [[1024, 4], [2048, 4]]
    },
    "fconv_lm_dauphin_gbw": {"decoder_embed_dim": 128, "adaptive_softmax_cutoff": [10000, 50000, 200000]}
    | {
        "decoder_layers": [[512, 5]]
        + [[128, 1, 0], [128, 5, 0], [512, 1, 3]] * 3
        + [[512, 1, 0], [512, 5, 0], [1024, 1, 3]] * 3
        + [[1024, 1, 0], [1024, 5, 0], [2048, 1, 3]] * 6
        + [[1024, 1, 0], [1024, 5, 0], [4096, 1, 3]]
    },
    "lightconv": {"encoder_layers": 7, "decoder_layers": 6, "encoder_embed_dim": 512, "encoder_glu": True}
    | {"decoder_ffn_embed_dim": 2048, "decoder_attention_heads": 8, "dropout": 0.1, "weight_dropout": 0.0}
    | {"input_dropout": 0.1, "decoder_conv_dim": 512, "decoder_conv_type": "dynamic"},
    "lightconv_iwslt_de_en": {"decoder_ffn_embed_dim": 1024, "decoder_attention_heads": 4, "decoder_glu": False}
    | {"dropout": 0.1, "attention_dropout": 0.1, "weight_dropout": 0.1, "input_dropout": 0.0},
    "lightconv_wmt_en_de_big": {"decoder_embed_dim": 1024, "decoder_ffn_embed_dim": 4096, "decoder_conv_dim": 1024}
    | {"decoder_attention_heads": 16, "dropout": 0.3, "attention_dropout": 0.1, "weight_dropout": 0.1},
    "lightconv_wmt_en_fr_big": {"encoder_conv_dim": 1024, "dropout": 0.1, "weight_dropout": 0.1, "input_dropout": 0.1},
    "lightconv_wmt_zh_en_big": {"dropout": 0.2, "attention_dropout": 0.2, "weight_dropout": 0.2, "input_dropout": 0.1},
    "lightconv_lm": {"decoder_layers": 6, "decoder_normalize_before": True, "decoder_ffn_embed_dim": 2048},
    "lightconv_lm_gbw": {"decoder_ffn_embed_dim": 4096, "decoder_attention_heads": 16, "attention_dropout": 0.1},
}


class Words:
    source_vocabulary = target_vocabulary = vocabulary(20)


def composed(options: list[str]) -> dict[str, Any]:
    """The values of an option of `conf/model`, named first, with changes."""
    name, *sizes = options
    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose("train", ["task.data=.", f"model={name}", *[f"model.{size}" for size in sizes]])
    values: Any = OmegaConf.to_container(node.model, resolve=True)
    return dict(values)


def build(options: list[str]) -> Model:
    """The model with random weights."""
    torch.manual_seed(1)
    model: Model = configure(composed(options), Model, "model")(Words())
    return model.eval()


def rows(lengths: list[int]) -> torch.Tensor:
    """Sentences of random words, padded at the end."""
    tokens = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(4, 20, (length,))
    return tokens


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_steps_equal_all_at_once_and_padding_changes_nothing(options: list[str]) -> None:
    model = build(options)
    lengths, target = [5, 2, 3], rows([6, 6, 6])
    source = rows(lengths)
    encoder_out = model.encode(source, torch.tensor(lengths))
    features = model.decode(target, encoder_out)
    cache = model.new_cache()
    close(torch.cat([model.decode(target[:, t : t + 1], encoder_out, cache) for t in range(6)], dim=1), features)
    for row, length in enumerate(lengths):
        alone = model.encode(source[row : row + 1, :length], torch.tensor([length]))
        close(model.decode(target[row : row + 1], alone)[0], features[row])
    assert model.project(features).shape == (3, 6, 20)


@pytest.mark.parametrize(("fault", "options"), FAULTS.items())
def test_what_does_not_fit_is_said_before_anything_is_made(fault: str, options: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        build(options)
    assert fault in str(raised.value)


@pytest.mark.parametrize("name", NAMED)
def test_named_architectures(name: str) -> None:
    values = composed([name])
    assert {key: values[key] for key in NAMED[name]} == NAMED[name]
    configure(values, Model, "model")

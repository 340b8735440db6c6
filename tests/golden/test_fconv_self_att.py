"""fairseq's convolutions with self-attention."""

from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest
import torch

from app.models.fconv_self_att import FConvSelfAtt, FConvSelfAttConfig
from tests.golden import zoo
from tests.golden.cases import Case, claimed, task_of
from tests.golden.test_fconv import layers
from tests.runs import train


def flags(given: str) -> list[bool] | None:
    """fairseq gives one word for all layers, or a list of them."""
    value = literal_eval(given)
    if value is True:
        return None
    return value or []


def story_model(case: Case, **changes: Any) -> FConvSelfAtt:
    given = case.spec["model_config"]
    names = ("encoder_attention", "decoder_attention", "self_attention")
    cfg = zoo.options(
        FConvSelfAttConfig,
        case,
        **{name: flags(given[name]) for name in names},
        encoder_layers=layers(case, "encoder_layers"),
        decoder_layers=layers(case, "decoder_layers"),
        max_source_positions=given["max_source_positions"] - zoo.PAD - 1,
        max_target_positions=given["max_target_positions"] - zoo.PAD - 1,
        **{"mask_padding": False} | changes,
    )
    model = FConvSelfAtt(cfg, task_of(case))
    unread = [] if cfg.project_input else [name for name in case.under("param") if name not in model.state_dict()]
    assert all(".in_proj_" in name for name in unread), "fairseq keeps projections that it does not use"
    return zoo.load(model, case, tuple(unread))


@pytest.mark.parametrize("case", claimed("models", "fconv_self_att*"))
class TestFConvSelfAtt:
    def test_outputs(self, case: Any) -> None:
        zoo.outputs_are_fairseqs(story_model(case), case)

    def test_encoder_and_attention(self, case: Any) -> None:
        model, out = story_model(case), case.under("out")
        encoder_out, tokens, _ = zoo.run(model, case)
        assert encoder_out is not None
        zoo.close(encoder_out.states, out["encoder_out_x"])
        zoo.close(encoder_out.more[0], out["encoder_out_y"])
        attention, real = model.cross_attention(tokens, encoder_out), case.tensors["in/target"].ne(zoo.PAD)
        assert attention is not None
        zoo.close(attention[real] * len(model.decoder.attention), out["attn"][real])

    def test_gradients(self, case: Any) -> None:
        zoo.gradients_are_fairseqs(story_model(case), case)

    def test_steps(self, case: Any) -> None:
        zoo.steps_equal_all_at_once(story_model(case), case)

    def test_padding(self, case: Any) -> None:
        zoo.padding_changes_nothing(story_model(case, mask_padding=True), case)

    def test_rows_without_padding_are_fairseqs_either_way(self, case: Any) -> None:
        whole = case.tensors["in/src_tokens"].ne(zoo.PAD).all(1)
        assert whole.any()
        model = story_model(case, mask_padding=True)
        real = case.tensors["in/target"][whole].ne(zoo.PAD)
        zoo.close(model.project(zoo.run(model, case)[2])[whole][real], case.tensors["out/logits"][whole][real])

    def test_search(self, case: Any) -> None:
        zoo.search_equals_one_without_a_cache(story_model(case, mask_padding=True), case)

    def test_steps_of_options_that_no_case_has(self, case: Any) -> None:
        """Heads that see every second position, and self-attention in the encoder."""
        torch.manual_seed(1)
        cfg = zoo.options(
            FConvSelfAttConfig,
            case,
            encoder_attention=None,
            decoder_attention=None,
            self_attention=None,
            multihead_self_attention_nheads=2,
            downsample=True,
            project_input=True,
            mask_padding=True,
            encoder_layers=layers(case, "encoder_layers"),
            decoder_layers=layers(case, "decoder_layers"),
        )
        zoo.steps_equal_all_at_once(FConvSelfAtt(cfg, task_of(case)).eval(), case)


def test_it_trains(tmp_path: Path) -> None:
    sizes = ["encoder_embed_dim=16", "encoder_layers=[[24,3]]", "decoder_layers=[[24,3]]", "decoder_out_embed_dim=16"]
    attention = ["self_attention=null", "multihead_self_attention_nheads=2", "project_input=true", "downsample=true"]
    model = [f"model.{each}" for each in [*sizes, *attention]]
    run = train(tmp_path, "model=fconv_self_att", *model, "trainer.max_update=5")
    assert (run / "config.yaml").is_file()

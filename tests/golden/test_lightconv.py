"""fairseq's LightConv and DynamicConv models."""

from pathlib import Path
from typing import Any

import pytest

from app.models.lightconv import LightConv, LightConvConfig
from tests.golden import zoo
from tests.golden.cases import UNNAMED, Case, claimed, task_of
from tests.runs import train


def lightconv(case: Case) -> LightConv:
    factor = case.spec["model_config"].get("adaptive_softmax_factor", UNNAMED["adaptive_softmax_factor"])
    shared = case.spec["model_config"]["share_decoder_input_output_embed"]
    shared = shared or case.spec["model_config"]["share_all_embeddings"]
    changes = {"adaptive_softmax_factor": factor, "share_decoder_input_output_embed": shared}
    return zoo.load(LightConv(zoo.options(LightConvConfig, case, **changes), task_of(case)), case, ("conv_bias",))


@pytest.mark.parametrize("case", claimed("models", "lightconv_*", "dynamicconv_*", "!*_lm"))
class TestLightConv:
    def test_outputs(self, case: Any) -> None:
        zoo.outputs_are_fairseqs(lightconv(case), case)

    def test_encoder_and_attention(self, case: Any) -> None:
        model, out = lightconv(case), case.under("out")
        encoder_out, tokens, _ = zoo.run(model, case)
        assert encoder_out is not None
        keep, real = encoder_out.keep, case.tensors["in/target"].ne(zoo.PAD)
        zoo.close(encoder_out.states[keep], out["encoder_out"].transpose(0, 1)[keep])
        attention = model.cross_attention(tokens, encoder_out)
        assert attention is not None
        zoo.close(attention[real], out["attn"][real])

    def test_gradients(self, case: Any) -> None:
        zoo.gradients_are_fairseqs(lightconv(case), case)

    def test_steps(self, case: Any) -> None:
        zoo.steps_equal_all_at_once(lightconv(case), case)

    def test_padding(self, case: Any) -> None:
        zoo.padding_changes_nothing(lightconv(case), case)

    def test_search(self, case: Any) -> None:
        zoo.search_equals_one_without_a_cache(lightconv(case), case)


@pytest.mark.parametrize("kind", ["lightweight", "dynamic"])
def test_it_trains(kind: str, tmp_path: Path) -> None:
    sizes = ["encoder_ffn_embed_dim=48", "encoder_attention_heads=2", f"encoder_conv_type={kind}"]
    sizes += ["encoder_kernel_size_list=[4]", "decoder_kernel_size_list=[3]"]
    run = train(tmp_path, "model=lightconv", *[f"model.{size}" for size in sizes], "trainer.max_update=5")
    assert (run / "config.yaml").is_file()

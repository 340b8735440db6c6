"""fairseq's convolutional models with gated linear units."""

from pathlib import Path
from typing import Any

import pytest

from app.models.fconv import FConv, FConvConfig
from tests.golden import zoo
from tests.golden.cases import Case, claimed, task_of
from tests.runs import train


def layers(case: Case, name: str) -> list[list[int]]:
    """fairseq gives layers as an expression of Python's."""
    return [list(layer) for layer in eval(case.spec["model_config"][name], {"__builtins__": {}})]


def fconv(case: Case) -> FConv:
    attention = eval(case.spec["model_config"]["decoder_attention"], {"__builtins__": {}})
    cfg = zoo.options(
        FConvConfig,
        case,
        encoder_layers=layers(case, "encoder_layers"),
        decoder_layers=layers(case, "decoder_layers"),
        max_source_positions=case.spec["model_config"]["max_source_positions"] - zoo.PAD - 1,
        max_target_positions=case.spec["model_config"]["max_target_positions"] - zoo.PAD - 1,
        decoder_attention=None if attention is True else attention,
    )
    return zoo.load(FConv(cfg, task_of(case)), case)


@pytest.mark.parametrize("case", claimed("models", "fconv", "fconv_residual"))
class TestFConv:
    def test_outputs(self, case: Any) -> None:
        zoo.outputs_are_fairseqs(fconv(case), case)

    def test_encoder_and_attention(self, case: Any) -> None:
        model, out = fconv(case), case.under("out")
        encoder_out, tokens, _ = zoo.run(model, case)
        assert encoder_out is not None
        keep, real = encoder_out.keep, case.tensors["in/target"].ne(zoo.PAD)
        zoo.close(encoder_out.states[keep], out["encoder_out_x"][keep])
        zoo.close(encoder_out.more[0][keep], out["encoder_out_y"][keep])
        attention = model.cross_attention(tokens, encoder_out)
        assert attention is not None
        zoo.close(attention[real], out["attn"][real])

    def test_gradients(self, case: Any) -> None:
        zoo.gradients_are_fairseqs(fconv(case), case)

    def test_steps(self, case: Any) -> None:
        zoo.steps_equal_all_at_once(fconv(case), case)

    def test_padding(self, case: Any) -> None:
        zoo.padding_changes_nothing(fconv(case), case)

    def test_search(self, case: Any) -> None:
        zoo.search_equals_one_without_a_cache(fconv(case), case)


def test_it_trains(tmp_path: Path) -> None:
    sizes = ["encoder_layers=[[24,3],[32,2]]", "decoder_layers=[[24,3]]", "decoder_out_embed_dim=16"]
    run = train(tmp_path, "model=fconv", *[f"model.{size}" for size in sizes], "trainer.max_update=5")
    assert (run / "config.yaml").is_file()

"""fairseq's language models that are no Transformers: LSTM, gated convolutions, LightConv and DynamicConv."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.interfaces import Model
from app.models.fconv_lm import FConvLM, FConvLMConfig
from app.models.lightconv_lm import LightConvLM, LightConvLMConfig
from app.models.lstm_lm import LSTMLM, LSTMLMConfig
from app.train import run
from tests.golden import zoo
from tests.golden.cases import Case, claimed, vocabulary
from tests.golden.test_fconv import layers
from tests.runs import TINY, configured, write_corpus

SMALL = {
    "lstm_lm": ["decoder_layers=2", "decoder_embed_dim=24", "decoder_out_embed_dim=16", "residuals=true"],
    "fconv_lm": ["decoder_layers=[[24,3],[24,2]]", "decoder_embed_dim=16"],
    "lightconv_lm": ["decoder_layers=1", "decoder_embed_dim=32", "decoder_kernel_size_list=[3]"],
}


def language_model(case: Case) -> Model:
    """The model of the case's architecture, with fairseq's weights."""
    words = vocabulary(case.spec["dict"]["size"])
    task: Any = SimpleNamespace(source_vocabulary=words, target_vocabulary=words)
    given = case.spec["model_config"]
    longest = {"max_target_positions": given["max_target_positions"] or given["tokens_per_sample"]}
    if case.spec["arch"] == "fconv_lm":
        changes = longest | {"decoder_layers": layers(case, "decoder_layers")}
        return zoo.load(FConvLM(zoo.options(FConvLMConfig, case, **changes), task), case)
    if case.spec["arch"] == "lightconv_lm":
        return zoo.load(LightConvLM(zoo.options(LightConvLMConfig, case, **longest), task), case, ("conv_bias",))
    unread = ("additional_fc.weight", "additional_fc.bias") if zoo.cutoff(case) else ()
    return zoo.load(LSTMLM(zoo.options(LSTMLMConfig, case, **longest), task), case, unread)


@pytest.mark.parametrize("case", claimed("models", "lstm_lm*", "fconv_lm*", "lightconv_lm*", "dynamicconv_lm*"))
class TestLanguageModel:
    def test_outputs(self, case: Any) -> None:
        zoo.outputs_are_fairseqs(language_model(case), case)

    def test_gradients(self, case: Any) -> None:
        zoo.gradients_are_fairseqs(language_model(case), case)

    def test_steps(self, case: Any) -> None:
        zoo.steps_equal_all_at_once(language_model(case), case)

    def test_search(self, case: Any) -> None:
        zoo.search_equals_one_without_a_cache(language_model(case), case)


@pytest.mark.parametrize("name", SMALL)
def test_it_trains(name: str, tmp_path: Path) -> None:
    tiny = [override for override in TINY if not override.startswith("model")]
    places = [f"task.data={write_corpus(tmp_path / 'corpus')}", f"cache_dir={tmp_path / 'cache'}"]
    model = [f"model={name}", *[f"model.{size}" for size in SMALL[name]]]
    run(*configured([*tiny, *places, *model, f"run_dir={tmp_path / 'run'}", "trainer.max_update=5"]))
    assert (tmp_path / "run" / "config.yaml").is_file()

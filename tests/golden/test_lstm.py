"""fairseq's LSTM models."""

from pathlib import Path
from typing import Any

import pytest

from app.models.lstm import LSTM, LSTMConfig
from tests.golden import zoo
from tests.golden.cases import Case, claimed, task_of
from tests.runs import train


def lstm(case: Case) -> LSTM:
    unread = ("additional_fc.weight", "additional_fc.bias") if zoo.cutoff(case) else ()
    given = case.spec["model_config"]
    shared = given["share_decoder_input_output_embed"] or given["share_all_embeddings"]
    cfg = zoo.options(LSTMConfig, case, share_decoder_input_output_embed=shared)
    return zoo.load(LSTM(cfg, task_of(case)), case, unread)


@pytest.mark.parametrize("case", claimed("models", "lstm", "lstm_*", "!lstm_lm*"))
class TestLSTM:
    def test_outputs(self, case: Any) -> None:
        zoo.outputs_are_fairseqs(lstm(case), case)

    def test_encoder_and_attention(self, case: Any) -> None:
        model, out = lstm(case), case.under("out")
        encoder_out, tokens, _ = zoo.run(model, case)
        assert encoder_out is not None
        zoo.close(encoder_out.states[encoder_out.keep], out["encoder_out"].transpose(0, 1)[encoder_out.keep])
        for ours, theirs in zip(encoder_out.more, ("final_hiddens", "final_cells"), strict=True):
            zoo.close(ours, out[theirs].transpose(0, 1))
        attention, real = model.cross_attention(tokens, encoder_out), case.tensors["in/target"].ne(zoo.PAD)
        assert (attention is None) == ("attn" not in out)
        if attention is not None:
            zoo.close(attention[real], out["attn"][real])

    def test_gradients(self, case: Any) -> None:
        zoo.gradients_are_fairseqs(lstm(case), case)

    def test_steps(self, case: Any) -> None:
        zoo.steps_equal_all_at_once(lstm(case), case)

    def test_padding(self, case: Any) -> None:
        zoo.padding_changes_nothing(lstm(case), case)

    def test_search(self, case: Any) -> None:
        zoo.search_equals_one_without_a_cache(lstm(case), case)


def test_it_trains(tmp_path: Path) -> None:
    sizes = ["encoder_embed_dim=24", "decoder_embed_dim=24", "decoder_out_embed_dim=16", "encoder_bidirectional=true"]
    plain = [f"model.{size}" for size in sizes]
    run = train(tmp_path, "model=lstm", *plain, "trainer.max_update=5")
    assert (run / "config.yaml").is_file()

"""The real fairseq's weights give the real fairseq's logits and gradients."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.interfaces import EncoderOut
from app.models.transformer import Transformer
from tests.golden import cases
from tests.golden.cases import Case, claimed, task_of

RELATIVE = 1e-4


def transformer(case: Case) -> Transformer:
    return cases.transformer(case.spec["model_config"], case.under("param"), task_of(case)).eval()


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=RELATIVE, atol=1e-5)


def run(model: Transformer, case: Case) -> tuple[EncoderOut, torch.Tensor]:
    batch = SimpleNamespace(**case.under("in"))
    encoder_out = model.encode(batch.src_tokens, batch.src_lengths)
    return encoder_out, model.decode(batch.prev_output_tokens, encoder_out)


def computed(model: Transformer, case: Case) -> torch.Tensor:
    """[B, T, V]: the classes that fairseq computes; with an adaptive softmax the target's cluster and the head."""
    target, size = case.tensors["in/target"], case.spec["target_dict"]["size"]
    softmax = model.decoder.adaptive_softmax
    if softmax is None:
        return torch.ones(*target.shape, size, dtype=torch.bool)
    clusters = torch.bucketize(torch.arange(size), torch.tensor(softmax.cutoff), right=True)
    return (clusters == clusters[target][..., None]) | (clusters == 0)


@pytest.mark.parametrize("case", claimed("models", "transformer_*", "!transformer_lm*", "!transformer_align"))
class TestTransformer:
    def test_outputs(self, case: Any) -> None:
        model, out = transformer(case), case.under("out")
        real = case.tensors["in/target"].ne(1)
        encoder_out, features = run(model, case)
        scores = model.project(features)
        close(encoder_out.states[encoder_out.keep], out["encoder_out"].transpose(0, 1)[encoder_out.keep])
        seen = computed(model, case)[real]
        close(scores.log_softmax(-1)[real][seen], out["lprobs"][real][seen])
        logits = features if case.spec["model_config"].get("adaptive_softmax_cutoff") else scores
        close(logits[real], out["logits"][real])

    def test_attention(self, case: Any) -> None:
        theirs = case.under("out").get("attn")
        model = transformer(case)
        encoder_out, _ = run(model, case)
        ours = model.cross_attention(case.tensors["in/prev_output_tokens"], encoder_out)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            real = case.tensors["in/target"].ne(1)
            close(ours[real], theirs[real])

    def test_gradients(self, case: Any) -> None:
        model = transformer(case)
        _, features = run(model, case)
        logits = features if case.spec["model_config"].get("adaptive_softmax_cutoff") else model.project(features)
        (logits * case.tensors["grad/R"]).sum().backward()
        ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for name, norm in case.spec["grad_norms"].items():
            if norm > 1e-5:
                assert float(ours[name].norm()) == pytest.approx(norm, rel=RELATIVE), name
        for name in case.spec["grads_in_full"]:
            close(ours[name], case.tensors[f"grad/{name}"])

    def test_decoding_step_by_step_equals_decoding_at_once(self, case: Any) -> None:
        model = transformer(case)
        encoder_out, features = run(model, case)
        tokens = case.tensors["in/prev_output_tokens"]
        real = tokens.ne(1)
        cache = model.new_cache()
        steps = [model.decode(tokens[:, t : t + 1], encoder_out, cache) for t in range(tokens.size(1))]
        close(torch.cat(steps, dim=1)[real], features[real])

    def test_left_and_right_padding_are_the_same(self, case: Any) -> None:
        model = transformer(case)
        encoder_out, features = run(model, case)
        source = case.tensors["in/src_tokens"]
        order = source.eq(1).long().argsort(dim=1, stable=True)
        moved = model.encode(source.gather(1, order), case.tensors["in/src_lengths"])
        real = case.tensors["in/target"].ne(1)
        close(model.decode(case.tensors["in/prev_output_tokens"], moved)[real], features[real])

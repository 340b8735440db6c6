"""What is asked of every model family: fairseq's numbers, and that decoding step by step changes none of them."""

from ast import literal_eval
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor

from app.interfaces import EncoderOut, Model
from app.search.beam import BeamSearch
from tests.golden.cases import Case, vocabulary
from tests.search.toy import config

RELATIVE = 1e-4
PAD = 1
UNREAD = ("version", "_float_tensor")  # buffers of fairseq's that nothing reads


def options(schema: type, case: Case, **changes: Any) -> Any:
    """The schema's fields out of fairseq's namespace; `changes` are what stands there otherwise, or not at all."""
    types, given = get_type_hints(schema), case.spec["model_config"] | changes
    given["adaptive_softmax_cutoff"] = cutoff(case)
    values = {f.name: given[f.name] for f in fields(schema)}
    for name, value in values.items():
        if types[name] is bool and isinstance(value, str):
            values[name] = bool(literal_eval(value))
    cfg = schema(**values)
    assert not list(cfg.check())
    return cfg


def cutoff(case: Case) -> list[int] | None:
    """Some of fairseq's models leave the cutoff aside unless the criterion is adaptive_loss: the weights say so."""
    if not any("adaptive_softmax" in name for name in case.under("param")):
        return None
    return [int(word) for word in case.spec["model_config"]["adaptive_softmax_cutoff"].split(",")]


def load(model: Model, case: Case, unread: tuple[str, ...] = ()) -> Any:
    """The model with fairseq's weights, by fairseq's names."""
    weights = {k: v.clone() for k, v in case.under("param").items() if not k.endswith(UNREAD + unread)}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=RELATIVE, atol=1e-5)


def run(model: Model, case: Case) -> tuple[EncoderOut | None, Tensor, Tensor]:
    """The encoder's output, the decoder's inputs, and its features."""
    given = case.under("in")
    if "prev_output_tokens" not in given:
        return None, given["src_tokens"], model.decode(given["src_tokens"])
    encoder_out = model.encode(given["src_tokens"], given["src_lengths"])
    return encoder_out, given["prev_output_tokens"], model.decode(given["prev_output_tokens"], encoder_out)


def outputs_are_fairseqs(model: Model, case: Case) -> None:
    real, out = case.tensors["in/target"].ne(PAD), case.under("out")
    _, _, features = run(model, case)
    scores = model.project(features)
    seen = computed(case)[real]
    close(scores.log_softmax(-1)[real][seen], out["lprobs"][real][seen])
    close((features if cutoff(case) else scores)[real], out["logits"][real])


def computed(case: Case) -> Tensor:
    """[B, T, V]: the classes that fairseq computes; with an adaptive softmax the target's cluster and the head."""
    target, size = case.tensors["in/target"], case.tensors["out/lprobs"].size(-1)
    edges = cutoff(case)
    if edges is None:
        return torch.ones(*target.shape, size, dtype=torch.bool)
    clusters = torch.bucketize(torch.arange(size), torch.tensor(edges), right=True)
    return (clusters == clusters[target][..., None]) | (clusters == 0)


def gradients_are_fairseqs(model: Model, case: Case) -> None:
    _, _, features = run(model, case)
    logits = features if cutoff(case) else model.project(features)
    (logits * case.tensors["grad/R"]).sum().backward()
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, norm in case.spec["grad_norms"].items():
        if norm > 1e-5:
            assert float(ours[name].norm()) == pytest.approx(norm, rel=RELATIVE), name
    for name in case.spec["grads_in_full"]:
        close(ours[name], case.tensors[f"grad/{name}"])


def steps_equal_all_at_once(model: Model, case: Case) -> None:
    encoder_out, tokens, features = run(model, case)
    real = tokens.ne(PAD)
    cache = model.new_cache()
    steps = [model.decode(tokens[:, t : t + 1], encoder_out, cache) for t in range(tokens.size(1))]
    close(torch.cat(steps, dim=1)[real], features[real])


def padding_changes_nothing(model: Model, case: Case) -> None:
    """The given padding, padding at the end, more of it, and none at all give one result."""
    _, tokens, features = run(model, case)
    source, lengths = case.tensors["in/src_tokens"], case.tensors["in/src_lengths"]
    real = case.tensors["in/target"].ne(PAD)
    right = source.gather(1, source.eq(PAD).long().argsort(dim=1, stable=True))
    wider = torch.nn.functional.pad(right, (0, 3), value=PAD)
    for moved in (right, wider):
        close(model.decode(tokens, model.encode(moved, lengths))[real], features[real])
    for row, length in enumerate(lengths.tolist()):
        alone = model.encode(right[row : row + 1, :length], lengths[row : row + 1])
        close(model.decode(tokens[row : row + 1], alone)[0][real[row]], features[row][real[row]])


class Recomputing(Model):
    """A model that decodes every prefix from its start, and so needs no cache but the tokens."""

    def __init__(self, model: Model):
        super().__init__(None, None)  # type: ignore[arg-type]
        self.model, self.max_positions = model, model.max_positions

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        return self.model.encode(src_tokens, src_lengths)

    def decode(self, prev_output_tokens: Tensor, encoder_out: Any = None, cache: Any = None) -> Tensor:
        tokens = cache.append(prev_output_tokens)
        if encoder_out is not None:
            rows = tokens.size(0) // encoder_out.keep.size(0)
            encoder_out = encoder_out.select(torch.arange(encoder_out.keep.size(0)).repeat_interleave(rows))
        return self.model.decode(tokens, encoder_out)[:, -1:]

    def new_cache(self) -> Any:
        return Tokens()

    def project(self, features: Tensor) -> Tensor:
        return self.model.project(features)


class Tokens:
    """What each row has decoded so far."""

    tokens: Tensor | None = None

    def append(self, new: Tensor) -> Tensor:
        self.tokens = new if self.tokens is None else torch.cat([self.tokens, new], dim=1)
        return self.tokens

    def reorder(self, rows: Tensor) -> None:
        assert self.tokens is not None
        self.tokens = self.tokens[rows]

    def keep_sentences(self, sentences: Tensor) -> None: ...


def search_equals_one_without_a_cache(model: Model, case: Case) -> None:
    """Beam search over batches that shrink, on sources padded at the end as the program pads them."""
    source, lengths = case.tensors["in/src_tokens"], case.tensors["in/src_lengths"]
    source = source.gather(1, source.eq(PAD).long().argsort(dim=1, stable=True))
    words = vocabulary(case.tensors.get("out/lprobs", case.tensors["out/logits"]).size(-1))
    search = BeamSearch(config(beam=4, nbest=4, max_len_a=1.0, max_len_b=3), words)
    quick, slow = (search.generate([each], source, lengths) for each in (model, Recomputing(model)))
    for ours, theirs in zip(quick, slow, strict=True):
        assert [h.tokens.tolist() for h in ours] == [h.tokens.tolist() for h in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-4)

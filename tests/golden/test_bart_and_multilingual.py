"""The real fairseq's numbers for the families that are made of the Transformer's parts."""

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.models.bart import Bart, BartConfig
from app.models.multilingual_transformer import MultilingualTransformer, MultilingualTransformerConfig
from app.models.transformer_align import TransformerAlign, TransformerAlignConfig
from tests.golden import zoo
from tests.golden.cases import UNNAMED, Case, claimed, task_of, vocabulary

HEAD = "cls"


def options(schema: type, case: Case) -> Any:
    """The schema's fields out of fairseq's namespace, which leaves out those that are the default."""
    given = UNNAMED | {"no_cross_attention": False, "cross_self_attention": False} | case.spec["model_config"]
    given |= {"no_token_positional_embeddings": given.get("no_token_positional_embeddings", False)}
    given.setdefault("activation_dropout", given.get("relu_dropout", 0.0))
    cfg = schema(**{f.name: given[f.name] for f in fields(schema)})
    assert not list(cfg.check())
    return cfg


def bart(case: Case) -> Any:
    words = vocabulary(case.spec["dict"]["size"])
    heads = {HEAD: case.spec["classes"]}
    task: Any = SimpleNamespace(source_vocabulary=words, target_vocabulary=words, classification_heads=heads)
    return zoo.load(Bart(options(BartConfig, case), task), case)


def align(case: Case) -> Any:
    return zoo.load(TransformerAlign(options(TransformerAlignConfig, case), task_of(case)), case)


MODELS = [*(pytest.param(bart, *each.values, id=each.id, marks=each.marks) for each in claimed("models", "bart*"))]
MODELS += [
    pytest.param(align, *each.values, id=each.id, marks=each.marks) for each in claimed("models", "transformer_align*")
]


@pytest.mark.parametrize(("make", "case"), MODELS)
@pytest.mark.parametrize(
    "check",
    [
        zoo.gradients_are_fairseqs,
        zoo.steps_equal_all_at_once,
        zoo.padding_changes_nothing,
        zoo.search_equals_one_without_a_cache,
    ],
)
def test_family(make: Any, case: Any, check: Any) -> None:
    check(make(case), case)


@pytest.mark.parametrize(("make", "case"), MODELS)
def test_outputs(make: Any, case: Any) -> None:
    model, out = make(case), case.under("out")
    real = case.tensors["in/target"].ne(zoo.PAD)
    encoder_out, _, features = zoo.run(model, case)
    assert encoder_out is not None
    zoo.close(encoder_out.states[encoder_out.keep], out["encoder_out"].transpose(0, 1)[encoder_out.keep])
    zoo.close(model.project(features)[real], out["logits"][real])


@pytest.mark.parametrize("case", claimed("models", "bart*"))
def test_classes(case: Any) -> None:
    batch = SimpleNamespace(**case.under("in"))
    zoo.close(bart(case).classify(batch, HEAD), case.tensors["out/classification_logits"])


@pytest.mark.parametrize("case", claimed("models", "transformer_align*"))
def test_alignment(case: Any) -> None:
    """From one pass with the features, and from one of its own."""
    model, real = align(case), case.tensors["in/target"].ne(zoo.PAD)
    encoder_out, tokens, features = zoo.run(model, case)
    zoo.close(model.cross_attention(tokens, encoder_out)[real], case.tensors["out/attn"][real])
    both = model.features_and_attention(SimpleNamespace(**case.under("in")))
    zoo.close(both[1][real], case.tensors["out/attn"][real])
    zoo.close(both[0][real], features[real])


@pytest.mark.parametrize("case", claimed("models", "multilingual_transformer*"))
class TestMultilingual:
    def model(self, case: Any) -> MultilingualTransformer:
        words = {lang: vocabulary(size) for lang, size in case.spec["dict_sizes"].items()}
        task: Any = SimpleNamespace(lang_pairs=case.spec["lang_pairs"], vocabularies=words)
        model: MultilingualTransformer = zoo.load(
            MultilingualTransformer(options(MultilingualTransformerConfig, case), task), case
        )
        return model

    def logits(self, model: MultilingualTransformer, case: Any, pair: str) -> torch.Tensor:
        given, one = case.under(f"in/{pair}"), model.of_pair(pair)
        return one.project(
            one.decode(given["prev_output_tokens"], one.encode(given["src_tokens"], given["src_lengths"]))
        )

    def test_outputs(self, case: Any) -> None:
        model = self.model(case)
        for pair in case.spec["lang_pairs"]:
            real = case.tensors[f"in/{pair}/target"].ne(zoo.PAD)
            zoo.close(self.logits(model, case, pair)[real], case.tensors[f"out/{pair}/logits"][real])

    def test_what_is_tied(self, case: Any) -> None:
        ours = {name: p.data_ptr() for name, p in self.model(case).named_parameters(remove_duplicate=False)}
        groups = [{name for name in group if name in ours} for group in case.spec["tied_parameters"]]
        tied = {name: min(group) for group in groups for name in group}
        assert len(set(ours.values())) == len({tied.get(name, name) for name in ours})
        assert all(len({ours[name] for name in group}) <= 1 for group in groups)

    def test_gradients(self, case: Any) -> None:
        model = self.model(case)
        objectives = [
            (self.logits(model, case, pair) * case.tensors[f"grad/R/{pair}"]).sum() for pair in case.spec["lang_pairs"]
        ]
        total = torch.stack(objectives).sum()
        assert total.item() == pytest.approx(case.spec["objective"], rel=zoo.RELATIVE)
        total.backward()
        named = dict(model.named_parameters(remove_duplicate=False))
        for name, norm in case.spec["grad_norms"].items():
            if norm > 1e-5:
                grad = named[name].grad
                assert grad is not None
                assert float(grad.norm()) == pytest.approx(norm, rel=zoo.RELATIVE), name

"""The models that refine drafts: tiny runs of each, what decoding does not depend on, and settings that do not fit."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from app.criterions.nat_loss import NatLoss, NatLossConfig
from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.errors import ConfigError
from app.hub import load
from app.interfaces import Draft, Prediction, Refinement, RefiningModel
from app.models.cmlm_transformer import least_sure
from app.models.iterative_nonautoregressive_transformer import corrupted
from tests.models.test_sequence_models import build, rows
from tests.runs import configured, train, write_corpus

BOS, PAD, EOS, UNK = Vocabulary.bos, Vocabulary.pad, Vocabulary.eos, Vocabulary.unk
NOISES = {
    "cmlm_transformer": "random_mask",
    "levenshtein_transformer": "random_delete",
    "nonautoregressive_transformer": "full_mask",
    "iterative_nonautoregressive_transformer": "full_mask",
    "insertion_transformer": "random_delete",
}
SIZES = ["encoder_layers=1", "decoder_layers=1", "encoder_embed_dim=16", "encoder_ffn_embed_dim=16"]
SIZES += ["encoder_attention_heads=2", "decoder_attention_heads=2", "share_all_embeddings=false"]
OPTIONS = {
    **{name: [name] for name in NOISES},
    "lengths of its own": ["nonautoregressive_transformer", "src_embedding_copy=true", "pred_length_offset=true"]
    + ["sg_length_pred=true", "apply_bert_init=true", "share_decoder_input_output_embed=true"],
    "draws": ["iterative_nonautoregressive_transformer", "stochastic_approx=true", "dae_ratio=1.0"],
    "layers of its own": ["levenshtein_transformer", "no_share_discriminator=true", "no_share_maskpredictor=true"]
    + ["early_exit=[1,2,1]", "sampling_for_deletion=true", "decoder_normalize_before=true"],
    "shared layers": ["levenshtein_transformer", "no_share_discriminator=true", "early_exit=[1,1,1]"]
    + ["share_discriminator_maskpredictor=true"],
    "balanced tree": ["insertion_transformer", "label_tau=0.5"],
}
RUN = ["task=translation_lev", "criterion=nat_loss", "search=iterative_refinement"]


def refining(options: list[str]) -> RefiningModel:
    model = build([options[0], *SIZES, "max_source_positions=40", "max_target_positions=40", *options[1:]])
    assert isinstance(model, RefiningModel)
    return model


def framed(lengths: list[int]) -> torch.Tensor:
    """Random sentences of these many pieces between bos and eos."""
    inner = rows(lengths)
    tokens = F.pad(inner, (1, 1), value=PAD)
    tokens[:, 0] = BOS
    return tokens.scatter(1, torch.tensor(lengths)[:, None] + 1, EOS)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
class TestOptions:
    def test_a_row_depends_on_no_other_and_on_no_padding(self, options: list[str]) -> None:
        model, source = refining(options), framed([7, 3, 5])
        lengths = source.ne(PAD).sum(1)
        steps = [Refinement(step, 4, 0.0, 2.0) for step in range(4)]

        def drafts(tokens: torch.Tensor, sizes: torch.Tensor) -> list[list[int]]:
            encoder_out = model.encode(tokens, sizes)
            draft = model.initialize(encoder_out)
            for step in steps:
                draft = model.refine(draft, encoder_out, step)
                assert draft.tokens.shape == draft.scores.shape
                assert draft.scores.le(0).all()
            return [row[row != PAD].tolist() for row in draft.tokens]

        with torch.inference_mode():
            together = drafts(F.pad(source, (0, 2), value=PAD), lengths)
            alone = [drafts(source[i : i + 1, :length], lengths[i : i + 1])[0] for i, length in enumerate(lengths)]
        assert together == alone
        assert max(map(len, together)) <= 41, "max_target_positions, and bos"

    def test_every_parameter_learns(self, options: list[str]) -> None:
        model, target = refining(options).train(), framed([6, 4])
        noised = torch.tensor([[BOS, UNK, EOS, PAD], [BOS, int(target[1, 2]), UNK, EOS]])
        if "random_delete" not in NOISES[options[0]]:
            noised = target.where(target.lt(UNK), UNK)
        given = Batch(torch.arange(2), target, target.ne(PAD).sum(1), noised, target, int(target.ne(PAD).sum()))
        loss = NatLoss(NatLossConfig(0.1), SimpleNamespace())(model, given)
        loss.value.backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert without == []

    def test_validation_draws_nothing(self, options: list[str]) -> None:
        model, target = refining(options), framed([6, 4])
        noised = target.where(target.lt(UNK), UNK)
        given = Batch(torch.arange(2), target, target.ne(PAD).sum(1), noised, target, int(target.ne(PAD).sum()))
        criterion = NatLoss(NatLossConfig(0.1), SimpleNamespace())
        before = torch.get_rng_state()
        assert float(criterion(model, given).value.detach()) > 0
        assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("name", NOISES)
def test_it_trains_and_translates(name: str, tmp_path: Path) -> None:
    sizes = [f"model.{size}" for size in SIZES]
    options = [f"model={name}", f"task.noise={NOISES[name]}", *sizes, *RUN, "search.iter_decode_max_iter=2"]
    judged = ["trainer.decode_valid=true", "trainer.max_update=4", "checkpoint.metric=bleu", "checkpoint.mode=max"]
    run = train(tmp_path, *options, *judged, corpus=write_corpus(tmp_path / "corpus", sizes=(40, 6, 6)))
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "valid"
    assert last["bleu"] >= 0
    assert last["word_ins_loss"] > 0
    model = load(run)
    lines = ["ba be", "", "bi bo bu"]
    options = {"iter_decode_max_iter": 2}
    found = model.hypotheses(lines, "iterative_refinement", retain_iter_history=True, **options)
    assert [len(each) for each in found] == [1, 1, 1]
    assert found[0][0].history is not None
    assert found[0][0].history[-1] == found[0][0].text
    with pytest.raises(ConfigError, match="choose search=iterative_refinement"):
        model.translate(lines)


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        (
            ["model=cmlm_transformer"],
            [
                "task: Translation knows no drafts, which CMLMTransformer refines; choose task=translation_lev",
                "choose criterion=nat_loss",
                "choose search=iterative_refinement",
            ],
        ),
        (["task=translation_lev"], ["task: TranslationLev is for models that refine drafts, as Transformer does not"]),
        (["search=iterative_refinement"], ["search: IterativeRefinement is for models that refine drafts"]),
        (
            ["model=levenshtein_transformer", *RUN, "search.iter_decode_with_beam=3"],
            ["search.iter_decode_with_beam: LevenshteinTransformer predicts no lengths"],
        ),
        (["task=translation_lev", "task.noise=loud"], ["task.noise=loud: must be one of random_delete"]),
        (["model=cmlm_transformer", *RUN, "model.src_embedding_copy=true"], ["model.src_embedding_copy=true: masks"]),
        (["model=levenshtein_transformer", *RUN, "model.early_exit=[6]"], ["model.early_exit=[6]: must be three"]),
    ],
)
def test_what_does_not_fit(options: list[str], faults: list[str], tmp_path: Path) -> None:
    corpus = [f"task.data={write_corpus(tmp_path / 'corpus', sizes=(2, 1, 1))}", "task.source_lang=xx"]
    with pytest.raises(ConfigError) as told:
        configured([*corpus, "task.target_lang=yy", *options])
    text = str(told.value)
    assert all(fault in text for fault in faults), text


def test_an_insertion_stands_where_its_gap_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = refining(["insertion_transformer"])
    wanted = torch.tensor([[5, PAD, 6], [7, 8, 9]])
    monkeypatch.setattr(model, "project", lambda features: F.one_hot(wanted, 20).float() * 9)
    draft = Draft(torch.tensor([[BOS, 10, 11, EOS], [BOS, EOS, PAD, PAD]]), torch.full((2, 4), -3.0))
    out = model.refine(draft, model.encode(framed([3, 3]), torch.tensor([5, 5])), Refinement(0, 1, 0.0, 2.0))
    assert out.tokens.tolist() == [[BOS, 5, 10, 11, 6, EOS], [BOS, 7, EOS, PAD, PAD, PAD]]
    new, old = float(F.one_hot(wanted, 20).float().mul(9).log_softmax(-1).max()), -3.0
    assert out.scores[0].tolist() == pytest.approx([old, new, old, old, new, old], rel=1e-3)


def test_the_least_sure_pieces_are_masked_again() -> None:
    tokens = torch.tensor([[BOS, 5, 6, 7, 8, EOS, PAD], [BOS, 5, 6, EOS, PAD, PAD, PAD]])
    scores = torch.tensor([[0, -1, -4, -2, -3, 0, 0], [0, 0, -1, 0, 0, 0, 0]]).float()
    masked = least_sure(Draft(tokens, scores), 0.5)
    assert masked.nonzero().tolist() == [[0, 2], [0, 4], [1, 2]]


def test_corruption_leaves_the_frame() -> None:
    torch.manual_seed(0)
    target = framed([30, 12] * 40)
    out = corrupted(target, 20)
    inner = target.ge(UNK)
    assert out[~inner].tolist() == target[~inner].tolist()
    assert out[inner].ge(UNK).all()
    changed = float((out != target)[inner].float().mean())
    assert 0.25 < changed < 0.45, "three ways of a ninth each, one of which moves two pieces"


def test_losses_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    features, weight = torch.randn(5, 4), torch.randn(7, 4)
    classes, soft = torch.tensor([0, 1, 6, 3, 3]), torch.rand(5, 7).softmax(-1)
    lprobs = (features @ weight.t()).log_softmax(-1)
    criterion = NatLoss(NatLossConfig(0.2), SimpleNamespace())
    nll = -lprobs.gather(1, classes[:, None]).mean()
    hard = criterion.means(Prediction(features, weight, classes))
    torch.testing.assert_close(hard, (0.8 * nll - 0.2 * lprobs.mean(), nll))
    plain = criterion.means(Prediction(features, weight, classes, label_smoothing=0.0))
    torch.testing.assert_close(plain, (nll, nll))
    divergence = (soft * (soft.log() - lprobs)).sum(-1).mean()
    torch.testing.assert_close(
        criterion.means(Prediction(features, weight, soft)), (0.8 * divergence - 0.2 * lprobs.mean(), divergence)
    )
    nothing = criterion.means(Prediction(features[:0].requires_grad_(), weight, classes[:0]))
    assert [float(each.detach()) for each in nothing] == [0.0, 0.0]


def test_parts_are_weighed_by_their_factors_and_by_the_batchs_tokens() -> None:
    torch.manual_seed(0)
    weight: Any = torch.randn(3, 2)
    parts = {
        "one": Prediction(torch.randn(4, 2), weight, torch.tensor([0, 1, 2, 0]), 0.0, factor=0.5),
        "two": Prediction(torch.randn(2, 2), weight, torch.tensor([1, 1]), 0.0, is_word=True),
    }
    means = {name: F.cross_entropy(part.features @ weight.t(), part.target).item() for name, part in parts.items()}
    model: Any = SimpleNamespace(predictions=lambda batch: parts)
    target = framed([3, 2])
    batch = Batch(torch.arange(2), target, target.ne(PAD).sum(1), target, target, 9)
    loss = NatLoss(NatLossConfig(0.1), SimpleNamespace())(model, batch)
    assert loss.sample_size == 9
    assert float(loss.value) == pytest.approx(9 * (0.5 * means["one"] + means["two"]))
    assert float(loss.logs["nll_loss"]) == pytest.approx(9 * means["two"])
    assert float(loss.logs["one_loss"]) == pytest.approx(9 * means["one"])

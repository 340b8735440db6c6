"""The benchmark's reference computes what training does, in another way; and every fast path learns as well as it."""

import json
from pathlib import Path

import pytest
import torch

from app.data.demo_corpus import write_demo_corpus
from benchmarks import speed
from benchmarks.reference import PATCHES, as_fairseq
from tests.runs import train

UPDATES = 600


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(speed.MODELS, "tiny", ["model=transformer_tiny"])
    monkeypatch.setattr(speed, "made_up_lengths", lambda made=speed.made_up_lengths: made(200))


def made(lacks: frozenset[str], plain: bool = False) -> speed.Training:
    training = speed.Training(speed.Row("tiny", "row", "fp32", lacks, plain), 256, 3)
    for module in training.model.modules():
        if hasattr(module, "p"):
            module.p = 0.0  # without dropout nothing is random
    return training


@pytest.mark.parametrize("lever", PATCHES)
def test_the_reference_computes_the_same(lever: str, tiny: None) -> None:
    ours, other = made(frozenset()), made(frozenset([lever]))
    for number in range(3):
        facts = ours.step(number), other.step(number)
        assert facts[0]["target"] == facts[1]["target"] > 0
    for mine, theirs in zip(ours.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-5)


def test_one_step_of_the_plain_row_is_ours(tiny: None) -> None:
    ours, plain = made(frozenset()), made(frozenset(PATCHES), plain=True)
    plain.batches, plain.chosen = ours.batches, ours.chosen
    for training in (ours, plain):
        training.step(0)
    mine, theirs = (torch.cat([p.flatten() for p in each.model.parameters()]) for each in (ours, plain))
    # A step is 1e-4 long. Torch adds eps after the correction of the bias, which small gradients feel.
    assert (mine - theirs).abs().median() < 1e-6
    assert ((mine - theirs).abs() < 2e-5).float().mean() > 0.98


def test_products_are_counted_and_padding_is_seen(tiny: None) -> None:
    training = made(frozenset())
    row = training.row
    facts = training.facts()
    layer = 4 * 64 * 64 + 2 * 64 * 64
    assert facts["encoder"] == 2 * layer
    assert facts["decoder"] == 2 * (layer + 4 * 64 * 64) + 64 * speed.WORDS
    assert 0 < facts["padding"] < 0.3
    step = training.step(0)
    line = speed.summed_up(row, [step, step], facts, peak=1e12)
    seconds = sum(step[part] for part in speed.PARTS)
    operations = 6 * (facts["encoder"] * step["source"] + facts["decoder"] * step["target"])
    assert line["mfu"] == pytest.approx(operations / seconds / 1e12, abs=1e-3)
    assert sum(line["time"].values()) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_every_fast_path_learns_as_the_plain_one(tmp_path: Path) -> None:
    """The loss of validation after the same updates is within 1 % of that of fp32 as fairseq computes it."""
    write_demo_corpus(tmp_path / "corpus", 1)
    common = ["task.source_lang=en", "task.target_lang=de", "model.encoder_layers=2", "model.decoder_layers=2"]
    common += ["model.encoder_embed_dim=64", "model.dropout=0.1", "callbacks=ema", "callbacks.ema.decay=0.99"]
    common += [f"trainer.max_update={UPDATES}", "lr_scheduler.warmup_updates=200", "trainer.validate_interval=1000"]

    def loss(name: str, *overrides: str) -> float:
        run_dir = train(tmp_path / name, *common, *overrides, corpus=tmp_path / "corpus")
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        return float(lines[-1]["loss"])

    with as_fairseq():
        plain = loss("plain")
    assert loss("fp32") == pytest.approx(plain, rel=0.01)
    assert loss("bf16", "precision=bf16") == pytest.approx(plain, rel=0.01)

"""The benchmark's reference computes what training does, in another way."""

import pytest
import torch

from benchmarks import speed
from benchmarks.reference import PATCHES


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

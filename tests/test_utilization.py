"""MFU: the operations of products are those of the formula, and what they are compared with is measured once."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from app import utilization
from app.interfaces import Loss
from app.utilization import Utilization, measured_peak, peak
from tests.runs import train

CPU = torch.device("cpu")


def stepped(model: nn.Module, x: torch.Tensor) -> list[Loss]:
    out = model(x)
    loss = (out[0] if isinstance(out, tuple) else out).sum()
    loss.backward()
    return [Loss(loss.detach(), x.size(0), {"ntokens": x.size(0)})]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_have_six_operations_a_parameter_and_token(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utilization, "measured_peak", lambda *_: 1e6)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(5, 8, requires_grad=True)
    made = Utilization(CPU, dtype, tmp_path)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        assert made.counted(lambda: stepped(model, x))[0].sample_size == 5
    parameters = 8 * 16 + 16 * 4
    assert made.operations == 6 * parameters * 5
    assert made.share(100.0, 0.0, 1) == pytest.approx({"mfu": 6 * parameters * 100 / 1e6})
    assert made.share(100.0, 0.5, 2) == pytest.approx({"mfu": 6 * parameters * 100 / 1e6 / 4})


def test_only_the_first_batches_are_counted(tmp_path: Path) -> None:
    made, model, x = Utilization(CPU, None, tmp_path), nn.Linear(2, 2), torch.randn(3, 2)
    for _ in range(utilization.BATCHES + 4):
        made.counted(lambda: stepped(model, x))
    assert made.tokens == utilization.BATCHES * 3


def test_what_cannot_be_known_is_left_out(tmp_path: Path) -> None:
    x, linear = torch.randn(3, 2, 2), nn.Linear(2, 2)
    nowhere = Utilization(CPU)
    nowhere.counted(lambda: stepped(linear, x))
    assert nowhere.share(100.0, 0.0, 1) == {}
    assert Utilization(CPU, None, tmp_path).share(100.0, 0.0, 1) == {}
    recurrent = Utilization(CPU, None, tmp_path)
    recurrent.counted(lambda: stepped(nn.LSTM(2, 2), x))
    assert recurrent.share(100.0, 0.0, 1) == {}


def test_the_peak_is_measured_once_a_machine_and_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilization, "measured_peak", lambda device, dtype: {torch.float32: 2.0}.get(dtype, 3.0))
    assert peak(CPU, torch.float32, tmp_path / "cache") == 2.0
    assert peak(CPU, torch.bfloat16, tmp_path / "cache") == 3.0
    monkeypatch.setattr(utilization, "measured_peak", lambda device, dtype: pytest.fail("measured again"))
    assert peak(CPU, torch.float32, tmp_path / "cache") == 2.0
    assert sorted(json.loads((tmp_path / "cache" / "peaks.json").read_text()).values()) == [2.0, 3.0]


@pytest.mark.parametrize("content", ["", "[]", '{"half'])
def test_a_damaged_file_and_a_disk_that_refuses_are_no_reason_to_fail(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utilization, "measured_peak", lambda *_: 2.0)
    (tmp_path / "peaks.json").write_text(content)
    assert peak(CPU, torch.float32, tmp_path) == 2.0
    (tmp_path / "file").write_text("")
    assert peak(CPU, torch.float32, tmp_path / "file") == 2.0


def test_the_machine_has_a_peak_and_measuring_it_draws_nothing() -> None:
    state = torch.get_rng_state()
    assert 1e8 < measured_peak(CPU, torch.float32) < 1e14
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_shows_it(tmp_path: Path) -> None:
    run_dir = train(tmp_path, "trainer.max_update=10")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    shares = [line["mfu"] for line in lines if line["kind"] == "train"]
    assert len(shares) == 2
    assert all(0 < share < 1 for share in shares)
    assert (tmp_path / "cache" / "peaks.json").is_file()

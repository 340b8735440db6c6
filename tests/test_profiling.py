"""A profiled run says where its time went, and writes a trace; one that is not profiled writes nothing."""

import json
from pathlib import Path

import pytest
import torch

from app.profiling import Profile
from tests.runs import train

CPU = torch.device("cpu")


def test_time_is_that_of_the_innermost_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr("app.profiling.time.perf_counter", lambda: next(moments))
    profile = Profile(tmp_path, CPU)  # at 0
    with profile.part("forward"), profile.part("backward"):  # at 1; from 3 to 6
        pass
    profile.num_updates = 10
    assert profile.current == "rest"  # since 10
    shares = profile.shares()  # at 15
    assert shares == pytest.approx({"time_rest": 6 / 15, "time_forward": 6 / 15, "time_backward": 3 / 15})


def test_a_part_ends_with_an_error_and_iteration_with_its_items(tmp_path: Path) -> None:
    profile = Profile(tmp_path, CPU)
    with pytest.raises(ValueError, match="inside"), profile.part("forward"):
        raise ValueError("inside")
    assert profile.current == "rest"
    assert list(profile.each("data", iter("abc"))) == ["a", "b", "c"]
    assert profile.seconds["data"] > 0


def test_a_profiled_run(tmp_path: Path) -> None:
    run_dir = train(tmp_path, "trainer.profile=true", "trainer.max_update=15", "batching.max_tokens=200")
    events = json.loads((run_dir / "profile" / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("backward") == names.count("optimizer") == 3
    assert "aten::addmm" in (run_dir / "profile" / "operations.txt").read_text()
    times = json.loads((run_dir / "profile" / "times.json").read_text())
    assert times["updates"] == 7
    assert set(times["shares"]) >= {f"time_{part}" for part in ("data", "forward", "backward", "optimizer", "rest")}
    assert sum(times["shares"].values()) == pytest.approx(1)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert ["time_backward" in line for line in lines if line["kind"] == "train"] == [False, True, True]


def test_a_run_that_ends_within_the_trace_writes_it_and_one_before_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert (
        train(tmp_path / "six", "trainer.profile=true", "trainer.max_update=6") / "profile" / "trace.json"
    ).is_file()
    assert "too few" not in caplog.text
    train(tmp_path / "two", "trainer.profile=true", "trainer.max_update=2")
    assert "trainer.profile: 2 updates are too few" in caplog.text


def test_without_it_nothing_is_written_and_nothing_timed(tmp_path: Path) -> None:
    run_dir = train(tmp_path, "trainer.max_update=10")
    assert not (run_dir / "profile").exists()
    optimizer = object()
    assert Profile(None, CPU).of_backward(optimizer) is optimizer  # type: ignore[arg-type]

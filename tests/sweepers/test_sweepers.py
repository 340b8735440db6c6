"""The sweepers on a made-up result, by the command line that a user types."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from app import cli
from app.errors import ConfigError, DataError
from app.sweepers.space import axes_of, point
from tests.runs import write_corpus

LR = "optimizer.lr=tag(log, interval(1e-5, 1e-1))"
Function = Callable[[Any, Any], float]


def bowl(cfg: Any, plugins: Any) -> float:
    """Best at lr = 1e-3 and dropout 0.1; longer training is better."""
    lr, dropout = cfg.optimizer["lr"], cfg.model["dropout"]
    return abs(math.log10(lr / 1e-3)) + abs(dropout - 0.1) + 1 / cfg.trainer.max_update


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Any], list[dict[str, Any]]]]:
    """Runs a sweep; returns the configurations of its jobs, in order, and its results, best first."""
    corpus = write_corpus(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(cli, "log_to_stderr", lambda: None)

    def swept(*overrides: str, function: Function = bowl) -> tuple[list[Any], list[dict[str, Any]]]:
        seen: list[Any] = []

        def job(cfg: Any, plugins: Any) -> float:
            seen.append(cfg)
            return function(cfg, plugins)

        monkeypatch.setattr(sys, "argv", ["train", "-m", f"task.data={corpus}", *overrides])
        cli.command("train", job)()
        (results,) = (tmp_path / "outputs" / "sweeps").glob("*/results.json")
        return seen, json.loads(results.read_text())

    return swept


def axes(*overrides: str) -> Any:
    return axes_of(OverridesParser.create().parse_overrides(list(overrides)))[0]


def test_points_are_in_their_ranges_and_the_same_each_time() -> None:
    space = axes("a=tag(log, interval(1e-5, 1e-1))", "b=x,y,z", "c=tag(int, interval(1, 3))", "d=interval(-1, 1)")
    points = [dict(text.split("=") for text in point(space, 1, i)) for i in range(300)]
    assert points == [dict(text.split("=") for text in point(space, 1, i)) for i in range(300)]
    assert points[0] != dict(text.split("=") for text in point(space, 2, 0))
    assert all(1e-5 <= float(p["a"]) <= 1e-1 for p in points)
    assert {p["b"] for p in points} == {"x", "y", "z"}
    assert {p["c"] for p in points} == {"1", "2", "3"}
    assert all(-1 <= float(p["d"]) <= 1 for p in points)
    below = sum(float(p["a"]) < 1e-3 for p in points)  # the middle of the logarithm
    assert 120 < below < 180


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("a=tag(log, interval(0, 1))", "a: a logarithmic interval starts above 0"),
        ("a=interval(2, 1)", r"a: interval\(2, 1\) is empty"),
        ("a=tag(lgo, interval(1, 2))", "a: tag lgo is not known"),
    ],
)
def test_a_range_that_cannot_be_searched(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        axes(override)


def test_random_search_finds_and_repeats_its_points(sweep: Any) -> None:
    asked = ("hydra/sweeper=random", "hydra.sweeper.n_trials=12", LR, "model.dropout=0.1,0.3")
    seen, results = sweep(*asked)
    assert len(seen) == 12
    assert [row["value"] for row in results] == sorted(bowl(cfg, None) for cfg in seen)
    assert len({cfg.run_dir for cfg in seen}) == 12
    again, _ = sweep(*asked)
    assert [cfg.run_dir for cfg in again] == [cfg.run_dir for cfg in seen]


def test_a_score_is_searched_upwards(sweep: Any) -> None:
    chosen = ("checkpoint.metric=bleu", "checkpoint.mode=max", LR)
    _, results = sweep("hydra/sweeper=random", "hydra.sweeper.n_trials=5", *chosen)
    values = [row["value"] for row in results]
    assert values == sorted(values, reverse=True)


def test_a_job_that_fails_does_not_end_the_search(sweep: Any) -> None:
    def fails_where_lr_is_high(cfg: Any, plugins: Any) -> float:
        if cfg.optimizer["lr"] > 1e-3:
            raise DataError("train.de: empty")
        return bowl(cfg, plugins)

    seen, results = sweep("hydra/sweeper=random", "hydra.sweeper.n_trials=8", LR, function=fails_where_lr_is_high)
    failed = sum(cfg.optimizer["lr"] > 1e-3 for cfg in seen)
    assert 0 < failed < 8
    assert [row["value"] is None for row in results] == [False] * (8 - failed) + [True] * failed


def test_successive_halving_trains_the_best_longer(sweep: Any) -> None:
    given = ("hydra.sweeper.n_trials=9", "hydra.sweeper.min_update=100", "trainer.max_update=900")
    seen, results = sweep("hydra/sweeper=successive_halving", *given, LR)
    assert [cfg.trainer.max_update for cfg in seen] == [100] * 9 + [300] * 3 + [900]
    first = sorted(seen[:9], key=lambda cfg: bowl(cfg, None))
    assert {cfg.run_dir for cfg in seen[9:12]} == {cfg.run_dir for cfg in first[:3]}  # each goes on where it was
    assert seen[12].run_dir == first[0].run_dir
    assert results[0]["value"] == bowl(seen[12], None)


def test_optuna_finds_better_points_than_its_first_ones(sweep: Any) -> None:
    seen, results = sweep("hydra/sweeper=optuna", "hydra.sweeper.n_trials=24", LR, "model.dropout=interval(0, 0.5)")
    values = [bowl(cfg, None) for cfg in seen]
    assert len(seen) == 24
    assert results[0]["value"] == min(values)
    assert sum(values[12:]) < sum(values[:12])

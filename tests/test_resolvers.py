"""Directories have names that say what they hold, and the same command finds the same one again."""

import pytest
from hydra.core.hydra_config import HydraConfig

from app.cli import store_schema
from app.compose import compose_one, composing
from app.resolvers import short

GOOD = ["task.data=corpus"]


def run_dir(*overrides: str) -> str:
    store_schema("train")
    with composing():
        node = compose_one("train", [*GOOD, *overrides]).node
    assert node is not None
    HydraConfig.instance().set_config(node)
    return str(node.run_dir)


def test_the_name_says_what_is_run() -> None:
    assert run_dir().startswith("outputs/translation-transformer-")
    assert run_dir("model=transformer_tiny").startswith("outputs/translation-transformer_tiny-")
    assert run_dir("experiment=multi30k").startswith("outputs/multi30k-")


def test_the_same_command_has_the_same_directory() -> None:
    assert run_dir("optimizer.lr=1e-3", "seed=2") == run_dir("seed=2", "optimizer.lr=0.001")


@pytest.mark.parametrize("changed", ["seed=2", "model.dropout=0.3", "trainer.clip_norm=1", "batching.max_tokens=8192"])
def test_what_shapes_the_result_has_a_directory_of_its_own(changed: str) -> None:
    assert run_dir(changed) != run_dir()


@pytest.mark.parametrize(
    "changed",
    ["trainer.max_update=7", "trainer.log_interval=1", "checkpoint.keep_last=3", "tracker=[wandb]", "search.beam=1"],
)
def test_a_run_can_go_on_longer_or_be_watched_otherwise(changed: str) -> None:
    assert run_dir(changed) == run_dir()


def test_a_directory_can_be_given() -> None:
    assert run_dir("run_dir=here/there") == "here/there"


def test_names_are_safe_and_short() -> None:
    assert short("task.data=../../a b,c=${x}") == "task.data=.._.._a_b,c=_x"
    assert short("a" * 500) != short("a" * 501)
    assert len(short("a" * 500)) == 120


@pytest.mark.parametrize(("updates", "warmup"), [(5, 5), (4600, 500)])
def test_a_recipe_that_is_cut_short_warms_up_for_less(updates: int, warmup: int) -> None:
    store_schema("train")
    with composing():
        node = compose_one("train", [*GOOD, "experiment=multi30k", f"trainer.max_update={updates}"]).node
    assert node is not None
    assert node.lr_scheduler.warmup_updates == warmup

"""`app.new` writes plug-ins that train as they are: the runs here use what it wrote."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from app import plugins
from app.check import KINDS
from app.cli import configure_node, store_schema
from app.compose import CONF
from app.errors import ConfigError
from app.new import KINDS as NEW_KINDS
from app.new import main, write_plugin
from app.plugins import open_search_paths
from tests.runs import TINY, write_corpus

NAMED = Path(__file__).parent / "user_dirs" / "named"


@pytest.fixture(autouse=True)
def _process_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "PACKAGES", {"app"})
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that has a plug-in of every kind."""
    into = tmp_path_factory.mktemp("user") / "every_kind"
    for kind in NEW_KINDS:
        write_plugin(kind, f"my_{kind}", into)
    return into


def test_there_is_a_template_for_every_kind_that_users_add() -> None:
    assert set(NEW_KINDS) == set(KINDS) - {"precision"}


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_names_are_the_users_throughout(kind: str, tmp_path: Path) -> None:
    written = write_plugin(kind, "quick_net", tmp_path / "mine")
    init, python, yaml = (path.read_text() for path in written)
    assert init == ""
    assert "_target_: mine.quick_net.QuickNet\n" in yaml
    assert "class QuickNet(" in python
    assert python.startswith('"""QuickNet: say here')
    assert not re.search(rf"my_{kind}|My[A-Z]|app.templates", python + yaml)


def train(directory: Path, every_kind: Path, *overrides: str) -> str:
    """A tiny run with the user's directory on the search path; returns what it logged."""
    from app.train import run

    given = [f"task.data={write_corpus(directory / 'corpus')}", f"cache_dir={directory / 'cache'}"]
    given += [f"run_dir={directory / 'run'}", "trainer.max_update=4"]
    given += ["trainer.validate_interval=0", "trainer.validate_interval_updates=4"]
    store_schema("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        search_path = f"hydra.searchpath=[file://{every_kind}/conf,file://{NAMED}/conf]"
        tiny = [text for text in TINY if "model=my_model" not in overrides or not text.startswith("model")]
        node = compose("train", [search_path, *tiny, *given, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(node)
        open_search_paths(node.hydra.runtime.config_sources)
        run(*configure_node(node, "train"))
    return (directory / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("kind", sorted(set(NEW_KINDS) - {"model", "lr_scheduler"}))
def test_a_kind_trains_as_it_is(kind: str, every_kind: Path, tmp_path: Path, caplog: Any) -> None:
    more = {
        "search": ["trainer.decode_valid=true", "search.max_len=8"],
        "scorer": ["trainer.decode_valid=true", "search=greedy"],
        "callbacks": ["callbacks.my_callbacks.every=2"],
    }
    caplog.set_level("INFO")
    metrics = train(tmp_path, every_kind, f"{kind}=my_{kind}", *more.get(kind, []))
    assert metrics.count('"kind": "valid"') == 1
    if kind == "scorer":
        assert '"my_scorer": ' in metrics
    if kind == "search":
        assert '"bleu": ' in metrics
    if kind == "tracker":
        assert (tmp_path / "run" / "my_tracker.txt").read_text().startswith("update 4: loss=")
    if kind == "callbacks":
        assert len(re.findall(r"update [24]: the weights have the 2-norm", caplog.text)) == 2


def test_a_model_trains_and_decodes_as_it_is(every_kind: Path, tmp_path: Path) -> None:
    metrics = train(
        tmp_path, every_kind, "model=my_model", "model.embed_dim=16", "trainer.decode_valid=true", "search.max_len=8"
    )
    assert '"bleu": ' in metrics


def test_a_composite_of_own_and_given_criterions_trains(every_kind: Path, tmp_path: Path) -> None:
    assert '"sentences_loss": ' in train(tmp_path, every_kind, "criterion=words_and_sentences")


def test_a_scheduler_warms_up(every_kind: Path, tmp_path: Path) -> None:
    metrics = train(
        tmp_path, every_kind, "lr_scheduler=my_lr_scheduler", "trainer.log_interval=1", "lr_scheduler.warmup_updates=3"
    )
    rates = [float(rate) for rate in re.findall(r'"lr": ([^,]+),', metrics)]
    assert rates == pytest.approx([5e-3 * share for share in (0.5, 0.75, 1.0, 1.0)])


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    into = tmp_path / "mine_here"
    _, python, _ = write_plugin("model", "net", into)
    python.write_text("# changed\n")
    with pytest.raises(ConfigError, match=r"net.py: is there already; choose another name"):
        write_plugin("model", "net", into)
    assert python.read_text() == "# changed\n"
    assert len(write_plugin("criterion", "loss", into)) == 2  # the package is there already


@pytest.mark.parametrize(
    ("name", "into", "told"),
    [
        ("my-net", "mine", "my-net: must be a Python name"),
        ("class", "mine", "class: must be a Python name"),
        ("net", "my module", "my module: must be a Python name"),
        ("net", "torch", "torch: Python already has a package of this name"),
    ],
)
def test_mistakes_are_answered(name: str, into: str, told: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["new", "model", name, "--into", str(tmp_path / into)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / into).exists()

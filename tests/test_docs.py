"""The documentation is true: its commands compose, its links lead somewhere, its keys and code are the program's."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from app.cli import arguments, store_schema
from app.compose import CONF, compose_one, compose_sweep, composing

ROOT = CONF.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HOME = "/home/me"  # where the pages put the directories of tests/user_dirs


def commands() -> list[str]:
    """Every line of a block that runs a module of this program, without its comment."""
    blocks = (block for page in PAGES for _, block in FENCE.findall(page.read_text()))
    lines = {line.strip() for block in blocks for line in block.splitlines()}
    return sorted(line for line in lines if line.startswith("python -m app."))


@pytest.fixture(autouse=True)
def _users_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "user_dirs"))


@pytest.mark.parametrize("line", commands())
def test_every_command_composes(line: str) -> None:
    _, _, module, *argv = shlex.split(line.replace(HOME, str(ROOT / "tests" / "user_dirs")), comments=True)
    assert importlib.util.find_spec(module) is not None
    name = module.removeprefix("app.")
    if not (CONF / f"{name}.yaml").is_file():  # a command without a configuration
        return
    store_schema(name)
    args = arguments(name, argv)
    with composing():
        runs = list(compose_sweep(name, args.overrides)) if args.multirun else [compose_one(name, args.overrides)]
    assert [fault for run in runs for fault in run.faults] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def quotations() -> Iterator[tuple[Path, str]]:
    """Blocks that stand right below a link to the file that they are from."""
    text = (ROOT / "docs" / "plugins.md").read_text()
    for target, block in re.findall(r"^\[[^\]]+\]\(([^)]+)\)\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield ROOT / "docs" / target, block


def test_the_tutorial_quotes_the_tested_directories() -> None:
    found = list(quotations())
    assert len(found) >= 6
    assert [(file.name, block) for file, block in found if block not in file.read_text()] == []


def known_keys() -> set[str]:
    """Every dotted key of the commands, with every option of the groups that a fairseq user is sent to."""
    keys = set()
    several = ["callbacks=ema", "precision=fp16", "tracker=[wandb,tensorboard]"]
    groups = ("task", "criterion", "optimizer", "lr_scheduler", "tokenizer", "search")
    options = [[f"{group}={path.stem}" for path in (CONF / group).glob("*.yaml")] for group in groups]
    runs = [[option for option in chosen if option] for chosen in zip_longest(*options)]
    others = [(command, []) for command in ("generate", "score", "evaluate", "average", "preprocess", "import_fairseq")]
    for command, overrides in [("train", several), *(("train", run) for run in runs), *others]:
        store_schema(command)
        with composing():
            node = compose_one(command, overrides).node
        assert node is not None
        HydraConfig.instance().set_config(node)
        keys |= set(dotted(OmegaConf.to_container(node)))
    return keys


def dotted(node: object, key: str = "") -> Iterator[str]:
    if key:
        yield key
    for name, child in node.items() if isinstance(node, dict) else ():
        yield from dotted(child, f"{key}.{name}" if key else str(name))


def test_every_key_that_takes_a_flags_place_exists() -> None:
    lines = (ROOT / "docs" / "from_fairseq.md").read_text().splitlines()
    columns = [line.split("|")[2] for line in lines if line.startswith("|")]
    keys = [key for column in columns for key in re.findall(r"`([^`]+)`", column)]
    assert len(keys) > 60
    known = known_keys()
    wrong = []
    for name, is_set, value in (key.partition("=") for key in keys):
        an_option = bool(is_set) and (CONF / name / f"{value}.yaml").is_file()
        if not an_option and name not in known and not name.startswith("hydra."):
            wrong.append(name + is_set + value)
    assert wrong == []


def test_every_exit_code_is_told() -> None:
    from app import errors

    page = (ROOT / "docs" / "errors.md").read_text()
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and name != "Stopped"}
    assert [name for name, kind in classes.items() if f"| {kind.exit_code} | `{name}` |" not in page] == []

"""The documentation is true: its commands compose, its links lead somewhere, its keys and code are the program's."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from app.catalogue import values_of
from app.check import KINDS, SEVERAL
from app.cli import arguments, store_schema
from app.compose import CONF, compose_one, compose_sweep, composing

ROOT = CONF.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))  # tests/docs follows them step by step
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


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in (target for target in LINK.findall(page.read_text()) if "://" not in target):
        file, _, anchor = target.partition("#")
        assert (page.parent / file).exists(), target
        assert not anchor or anchor in anchors((page.parent / file) if file else page), target


def test_every_page_is_in_the_index() -> None:
    index = set(LINK.findall((ROOT / "docs" / "README.md").read_text()))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages - index == {"README.md"}


def anchors(page: Path) -> set[str]:
    """The names that headings have in links."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


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
    """Every dotted key of the commands, whatever is chosen of the groups."""
    keys = {key for path in CONF.glob("*.yaml") for key in dotted(OmegaConf.to_container(OmegaConf.load(path)))}
    keys |= KINDS.keys() | {"distributed", "experiment", "debug"}
    for group in KINDS.keys() | {"distributed"}:
        for path in (CONF / group).glob("*.yaml"):
            place = f"{group}.{path.stem}" if group in SEVERAL else group
            keys |= set(dotted(values_of(group, path.stem, [CONF]), place))
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


NO_KEYS = {"group=option", "key=value", "local=gpu", "tracker.my_tracker", "weights_only=True"}
NO_KEYS |= {"model.pt", "optimizer.step", "lr_scheduler.step_update", "trainer.workers.is_first", "time_forward=..."}
NO_KEYS |= {"model.encoder.layers", 'install=bash)"'}


def spoken_of() -> set[str]:
    """Words of the pages' running text that look like a setting: `key=value`, or a key below a group or section."""
    text = "\n".join(FENCE.sub("", page.read_text()) for page in PAGES)
    words = {word.strip("'+") for code in re.findall(r"`([^`]+)`", text) for word in code.split()}
    places = KINDS.keys() | {"distributed", "trainer", "checkpoint", "batching"}
    values = {word for word in words if re.match(r"(?!hydra\b)[a-z_]+(\.[a-z_]+)*=", word)}
    return values | {word for word in words if re.fullmatch(rf"({'|'.join(places)})(\.[a-z_]+)+", word)}


def test_every_setting_that_is_spoken_of_exists() -> None:
    known = known_keys()
    known |= {key.rpartition(".")[2] for key in known}  # where a page has said which group it is about
    words = spoken_of() - NO_KEYS
    assert len(words) > 200
    assert {word for word in words if word.partition("=")[0] not in known} == set()
    chosen = [
        (group, option) for word in words for group, _, option in [word.partition("=")] if (CONF / group).is_dir()
    ]
    options = {(group, each) for group, option in chosen for each in re.findall(r"\w+", option) if each.islower()}
    assert {option for option in options if not (CONF / option[0] / f"{option[1]}.yaml").is_file()} == set()


def test_every_room_is_on_the_floor_plan() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    files = [path for path in (ROOT / "app").iterdir() if path.name not in ("__init__.py", "__pycache__")]
    rooms = [path for path in files if path.is_dir() or not re.search(r"^(def main|main =)", path.read_text(), re.M)]
    assert [path.name for path in rooms if not re.search(rf"\b{path.name}\b", page)] == []
    assert [name for name in re.findall(r"`(app/[\w/.]+)`", page) if not (ROOT / name).exists()] == []


def test_every_exit_code_is_told() -> None:
    from app import errors

    page = (ROOT / "docs" / "errors.md").read_text()
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and name != "Stopped"}
    assert [name for name, kind in classes.items() if f"| {kind.exit_code} | `{name}` |" not in page] == []

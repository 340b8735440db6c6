"""`conf/` and `app/` say the same, found by listing their files; and the floor plan's walls stand."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from app.check import KINDS, SEVERAL
from app.cli import store_schema
from app.compose import CONF, compose_one, composing
from app.plugins import resolve, schema_of
from app.roots import ROOTS

APP = CONF.parent / "app"
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml"))


def options(*groups: str) -> list[str]:
    return [f"{path.parent.name}={path.stem}" for group in groups for path in sorted((CONF / group).glob("*.yaml"))]


def composed(command: str, *overrides: str) -> Any:
    """The composed config, which must have no fault but values that only the user knows."""
    store_schema(command)
    with composing():
        run = compose_one(command, list(overrides))
    assert run.faults == []
    assert run.node is not None
    HydraConfig.instance().set_config(run.node)
    return run.node


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command: str) -> None:
    node = composed(command)
    assert node.hydra.job.name == command
    assert node.hydra.output_subdir is None
    assert node.hydra.job_logging.root is None
    assert set(node) - {"hydra"} == {field.name for field in fields(ROOTS[command])}


@pytest.mark.parametrize("option", options(*KINDS))
def test_every_option_has_the_keys_of_its_schema(option: str) -> None:
    group, _, name = option.partition("=")
    node = composed("train", option)[group]
    for child in node.values() if group in SEVERAL else [node]:
        target = resolve(child["_target_"], KINDS[group], group)
        parameters = inspect.signature(target).parameters
        known = {f.name for f in fields(schema_of(target, group))} if "cfg" in parameters else set(parameters)
        given = {str(key) for key in child} - {"_target_"}
        assert given == known if "cfg" in parameters else given <= known


@pytest.mark.parametrize("option", options("experiment", "debug"))
def test_every_experiment_composes(option: str) -> None:
    node = composed("train", option)
    assert set(node) - {"hydra"} >= {"task", "model"}
    assert OmegaConf.to_yaml(node)


def test_closed_sections_are_complete() -> None:
    missing = {key for key in OmegaConf.missing_keys(composed("train")) if not key.startswith("hydra.")}
    assert {key.partition(".")[0] for key in missing} <= {"task"} | SEVERAL


WITHIN_TRAINER = {"judgement", "meters", "profiling", "run_state", "stopping", "utilization"}
LAYERS = {  # who may import whom; every file may import the foundations
    "config": set(),
    "roots": set(),
    "schema": set(),
    "ranges": set(),
    "errors": set(),
    "data": set(),
    "plugins": set(),
    "runtime": set(),
    "modules": set(),
    "tokenizers": set(),
    "scorers": set(),
    "trackers": {"runtime"},
    "interfaces": {"data"},
    "models": {"interfaces", "modules", "data"},
    "criterions": {"interfaces", "modules", "data", "plugins"},  # composite_loss makes its parts
    "optimizers": {"interfaces", "plugins"},  # composite makes the optimizers of its groups
    "lr_schedulers": {"interfaces"},
    "search": {"interfaces", "data"},
    "tasks": {"interfaces", "data", "tokenizers", "search", "scorers"},
    "callbacks": {"interfaces"},
    "meters": {"interfaces"},
    "profiling": {"interfaces"},
    "utilization": {"interfaces"},
    "stopping": {"runtime"},
    "old_runs": {"catalogue", "compose", "plugins"},
    "run_config": {"old_runs"},
    "reporting": {"run_config", "runtime", "trackers"},
    "judgement": set(),
    "run_state": {"runtime", "trainer"},  # the trainer's type, no more
    "trainer": {"interfaces", "runtime", "trackers", "callbacks", "data"} | WITHIN_TRAINER,
}
FOUNDATIONS = {"config", "roots", "schema", "ranges", "errors"}


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The parts of every module of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "app":
            yield tuple(node.module.split("."))[1:] or (node.names[0].name,)
        elif isinstance(node, ast.Import):
            yield from (tuple(name.name.split("."))[1:] for name in node.names if name.name.startswith("app."))


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=lambda path: str(path.relative_to(APP)))
def test_who_may_import_whom(path: Path) -> None:
    layer = path.relative_to(APP).parts[0].removesuffix(".py")
    if layer not in LAYERS:  # a command, which may import what it puts together
        return
    for imported in imports(path):
        assert imported[0] in LAYERS[layer] | FOUNDATIONS | {layer}, f"{layer} imports {'.'.join(imported)}"


def test_the_page_has_the_same_walls() -> None:
    """docs/architecture.md says of every layer what `LAYERS` says."""
    page = (APP.parent / "docs" / "architecture.md").read_text()
    block = page.partition("## Who may import whom\n\n```\n")[2].partition("```")[0]
    told = {}
    for line in block.splitlines():
        names, allowed = re.match(r"([\w, ]*\w) +(<- [\w, ]+|nothing else|each other only)", line).groups()  # type: ignore[union-attr]
        words = set(re.findall(r"\w+", allowed)) if allowed.startswith("<-") else set()
        told |= dict.fromkeys(names.split(", "), words)
    told["trainer"] = (told["trainer"] & LAYERS.keys()) | WITHIN_TRAINER
    assert {name: told.get(name) for name in LAYERS} == LAYERS


FORBIDDEN = (
    r"\bpickle\b|torch\.load\((?!.*weights_only=True)|yaml\.load\(|\beval\(|shell=True|hydra\._internal|^\s*global "
)


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=lambda path: str(path.relative_to(APP)))
def test_nothing_that_runs_code_from_files(path: Path) -> None:
    code = re.sub(r'""".*?"""|#.*|"[^"\n]*"', "", path.read_text(), flags=re.DOTALL)
    code = code.replace("model.eval()", "").replace("self.eval()", "")
    assert re.findall(FORBIDDEN, code, flags=re.MULTILINE) == []

"""What `_target_` may name, and how a node becomes an object."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from app import plugins
from app.errors import ConfigError
from app.plugins import configure, open_search_paths, resolve
from app.ranges import probability
from app.schema import typed

OPTIMIZER = "torch.optim.Optimizer"
MODEL = "app.interfaces.Model"


@pytest.fixture(autouse=True)
def _process_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "PACKAGES", {"app"})
    monkeypatch.setattr(sys, "path", [*sys.path])


def faults_of(call: object, *arguments: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.faults


@pytest.mark.fault("F30")
@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "posix.system",
        "subprocess.run",
        "builtins.eval",
        "pickle.loads",
        "torch.load",
        "torch.hub.load",
        "torch.optim.Optimizer",
        "torch.optim.lr_scheduler.torch.load",
        "torch.utils.collect_env.run",
        "torch.utils.cpp_extension.load_inline",
        "pathlib.Path.write_text",
        "logging.os.system",
        "app.plugins.import_module",
        "app.plugins.Path",
        "app.plugins.sys.exit",
        "app.cli.os.system",
        "app.interfaces.Model",
        "application.Model",
        "nothing",
        "",
        "../../x",
    ],
)
def test_a_target_outside_the_allowlist_is_refused(target: str) -> None:
    (fault,) = faults_of(configure, {"_target_": target}, MODEL, "model")
    assert fault.startswith(f"model._target_={target}: ")


@pytest.mark.fault("F30")
def test_a_name_that_stands_for_a_class_from_elsewhere_is_refused() -> None:
    (fault,) = faults_of(resolve, "app.plugins.Path", object)
    assert "stands for pathlib.Path" in fault


def test_a_class_of_another_kind_is_refused() -> None:
    (fault,) = faults_of(resolve, "torch.optim.AdamW", MODEL, "model")
    assert fault == "model._target_=torch.optim.AdamW: must be a complete subclass of app.interfaces.Model"


def test_a_wrong_name_is_told_with_the_nearest() -> None:
    (fault,) = faults_of(resolve, "app.models.transformer.Transfomer", MODEL, "model")
    assert fault.endswith("the nearest is app.models.transformer.Transformer")


def test_a_node_without_a_target_is_refused() -> None:
    assert "_target_" in faults_of(configure, {"lr": 1.0}, OPTIMIZER, "optimizer")[0]
    assert "_target_" in faults_of(configure, 3, OPTIMIZER, "optimizer")[0]


def test_a_class_of_torch_takes_its_keywords() -> None:
    factory = configure({"_target_": "torch.optim.AdamW", "lr": 0.1, "betas": [0.9, 0.98]}, OPTIMIZER)
    optimizer = factory([torch.zeros(1, requires_grad=True)])
    assert optimizer.defaults["betas"] == (0.9, 0.98)


def test_all_faults_of_keywords_come_together() -> None:
    node = {"_target_": "torch.optim.Adam", "lr": "fast", "bets": [1, 2], "betas": [0.9], "eps": float("nan")}
    assert faults_of(configure, node, OPTIMIZER, "optimizer") == [
        "optimizer.bets: no such key; the nearest is optimizer.betas",
        "optimizer.lr=fast: must be a number",
        "optimizer.betas=[0.9]: must be a list of 2 numbers",
        "optimizer.eps=nan: must be a finite number",
    ]


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Inner:
    width: int

    def check(self) -> Iterator[str]:
        if self.width > 9:
            yield f"width={self.width}: too wide"


@dataclass
class Outer:
    dropout: float
    heads: int
    flag: bool
    name: str | None
    sizes: list[int]
    colour: Colour
    inner: Inner
    options: dict[str, float]

    def check(self) -> Iterator[str]:
        yield from probability(self, "dropout")


GOOD = {
    "dropout": 0.1,
    "heads": 8,
    "flag": True,
    "name": None,
    "sizes": [1, 2],
    "colour": "RED",
    "inner": {"width": 3},
    "options": {"a": 1.0},
}


def test_plain_values_become_the_dataclass() -> None:
    assert typed(Outer, GOOD) == Outer(0.1, 8, True, None, [1, 2], Colour.RED, Inner(3), {"a": 1.0})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"dropout": "abc"}, "model.dropout=abc: must be a number"),
        ({"dropout": float("inf")}, "model.dropout=inf: must be a finite number"),
        ({"dropout": 1.5}, "model.dropout=1.5: must be 0 or more and less than 1"),
        ({"heads": 1.5}, "model.heads=1.5: must be a whole number"),
        ({"heads": None}, "model.heads=None: must be a whole number"),
        ({"heads": "???"}, "model.heads: missing; give it with model.heads=..."),
        ({"flag": "perhaps"}, "model.flag=perhaps: must be true or false"),
        ({"name": [1]}, "model.name=[1]: must be text or null"),
        ({"sizes": ["a"]}, "model.sizes=['a']: must be a list, each a whole number"),
        ({"sizes": 3}, "model.sizes=3: must be a list, each a whole number"),
        ({"colour": "GREEN"}, "model.colour=GREEN: must be one of RED, BLUE"),
        ({"inner": {"width": "wide"}}, "model.inner.width=wide: must be a whole number"),
        ({"inner": {"width": 10}}, "model.inner.width=10: too wide"),
        ({"inner": {}}, "model.inner.width: missing; give it with model.inner.width=..."),
        ({"options": {"a": float("nan")}}, "model.options.a=nan: must be a finite number"),
        ({"droput": 0.1}, "model.droput: no such key; the nearest is model.dropout"),
    ],
)
def test_one_fault_one_line(change: dict[str, object], fault: str) -> None:
    assert faults_of(typed, Outer, {**GOOD, **change}, "model") == [fault]


def test_an_interpolation_in_plain_values_is_never_resolved() -> None:
    (fault,) = faults_of(typed, Outer, {**GOOD, "name": "${oc.env:HOME}"}, "model")
    assert fault.startswith("model.name=${oc.env:HOME}: holds an interpolation")


def test_all_faults_come_together() -> None:
    assert len(faults_of(typed, Outer, {"dropout": "abc", "heads": 1.5, "typo": 1})) == 9


def source(path: Path | str, schema: str = "file", provider: str = "command-line") -> SimpleNamespace:
    return SimpleNamespace(path=str(path), schema=schema, provider=provider)


def package(home: Path, name: str) -> Path:
    (home / name / "conf").mkdir(parents=True)
    (home / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    return home / name / "conf"


def test_a_search_path_opens_its_package_without_importing_it(tmp_path: Path) -> None:
    open_search_paths([source(package(tmp_path, "quiet_package"))])
    assert "quiet_package" in plugins.PACKAGES
    assert str(tmp_path) in sys.path
    assert "quiet_package" not in sys.modules
    (fault,) = faults_of(resolve, "quiet_package.Model", MODEL, "model")
    assert "RuntimeError" in fault
    assert "__init__.py:1" in fault


def test_only_the_users_own_search_paths_are_opened(tmp_path: Path) -> None:
    open_search_paths([source(package(tmp_path, "stored_package"), provider="main")])
    assert not plugins.PACKAGES - {"app"}


def test_a_directory_without_a_package_only_gives_its_yaml(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    open_search_paths([source(tmp_path / "conf")])
    assert not plugins.PACKAGES - {"app"}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (source("/nowhere/conf"), "no such directory"),
        (source("no_such_package.conf", "pkg"), "no package no_such_package"),
        (source("", "pkg"), "no package"),
    ],
)
def test_a_search_path_that_does_not_exist_is_told(found: SimpleNamespace, words: str) -> None:
    assert words in faults_of(open_search_paths, [found])[0]


def test_a_package_whose_name_is_taken_is_told(tmp_path: Path) -> None:
    (fault,) = faults_of(open_search_paths, [source(package(tmp_path, "json"))])
    assert "package json is also" in fault

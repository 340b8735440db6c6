"""What `app.describe` says is what the classes and the files say."""

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from app import plugins
from app.catalogue import fields_of, first_sentence, target_of
from app.check import KINDS
from app.compose import CONF
from app.describe import GROUPS, SECTIONS, described, main
from app.errors import ConfigError
from app.plugins import resolve, schema_of

USER_DIRS = Path(__file__).parent / "user_dirs"
OPTIONS = [f"{group}={path.stem}" for group in KINDS for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.fixture(autouse=True)
def _process_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "PACKAGES", {"app"})
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def text(subject: str | None, *overrides: str) -> str:
    return "\n".join(described(subject, list(overrides)))


@dataclass
class Base:
    one: int  # the first
    two: list[int] | None  # the second


@dataclass
class Inherits(Base):
    two: float  # the second, told again
    three: str  # inside brackets


def test_fields_have_types_and_meanings_inherited_ones_too() -> None:
    assert [tuple(field) for field in fields_of(Inherits)] == [
        ("one", "a whole number", "the first"),
        ("two", "a number", "the second, told again"),
        ("three", "text", "inside brackets"),
    ]


def test_every_setting_of_every_class_says_what_it_means() -> None:
    schemas = [*SECTIONS.values()]
    for group, name in (option.split("=") for option in OPTIONS):
        target = resolve(str(target_of(group, name, [CONF])), KINDS[group], group)
        if "cfg" in inspect.signature(target).parameters:
            schemas.append(schema_of(target, group))
    silent = {
        f"{schema.__name__}.{field.name}" for schema in schemas for field in fields_of(schema) if not field.meaning
    }
    assert silent == set()


def test_the_overview_has_every_group_and_section() -> None:
    said = text(None)
    assert {group for group in KINDS if f"  {group} " not in said} == set()
    assert {path.name for path in CONF.iterdir() if path.is_dir() and path.name in GROUPS} == set(GROUPS)
    assert "  checkpoint     What is saved, when, and what is kept." in said


def test_a_model_is_described_by_its_class_and_files() -> None:
    said = text("model=transformer_big", "model.dropout=0.3")
    assert said.startswith("model=transformer_big   (conf/model/transformer_big.yaml)")
    assert "app.models.transformer.Transformer   (app/models/transformer.py)" in said
    assert "  encoder_embed_dim = 1024   (a whole number)\n      " in said
    assert "  dropout = 0.3   (a number)\n      after embeddings and after each part of a layer" in said
    cfg: Any = resolve("app.models.transformer.Transformer", KINDS["model"])
    assert all(f"  {field.name} = " in said for field in fields(schema_of(cfg, "model")))


def test_groups_of_several_and_nested_settings_are_described() -> None:
    assert "Settings (change one with scorer.bleu.NAME=VALUE):" in text("scorer=bleu")
    said = text("optimizer=muon")
    assert "  groups.NAME.dims   (a whole number or null)" in said
    assert "momentum: 0.95" in said


def test_a_class_of_another_library_is_described_by_its_signature() -> None:
    assert "  momentum = 0.0   (int, by default 0)" in text("optimizer=sgd")


def test_a_recipe_is_shown() -> None:
    assert "vocab_size: 6000" in text("experiment=multi30k")


def test_options_are_listed_with_a_line_each() -> None:
    said = text("criterion")
    listed = [line.split()[0] for line in said.splitlines() if line.startswith("  criterion=")]
    assert listed == [option for option in OPTIONS if option.startswith("criterion=")]
    assert "criterion=ctc                     Connectionist temporal classification" in said


def test_a_users_directory_is_described_too() -> None:
    search_path = f"hydra.searchpath=[file://{USER_DIRS}/my_module/conf]"
    assert "model=windowed_transformer" in text("model", search_path)
    said = text("model=windowed_transformer", search_path)
    assert "  window = 3   (a whole number)\n      tokens that a source token sees to either side" in said
    assert "user_dirs/my_module/windowed_transformer.py)" in said


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["modle=lstm"], "modle: no such group or section; the nearest is model"),
        (["model=lsmt"], "model=lsmt: no such option of model; the nearest is lstm"),
        (["model=lstm", "model.droput=0.1"], "model.droput=0.1: no such key; the nearest is model.dropout"),
    ],
)
def test_mistakes_are_answered(argv: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["describe", *argv])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == ConfigError.exit_code
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("One. Two.", "One."),
        ("Graves et al. (2006), by torch. The blank is bos.", "Graves et al. (2006), by torch."),
        ("On two\nlines, eq. 3 of\nit\n\nMore.", "On two lines, eq. 3 of it"),
        (None, ""),
    ],
)
def test_first_sentence(docstring: str | None, expected: str) -> None:
    assert first_sentence(docstring) == expected

"""What there is to choose, and what it means: options, their files, their classes, and the meaning of every field."""

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from omegaconf import OmegaConf

from app.schema import describe


class Field(NamedTuple):
    """A setting as a person reads it."""

    name: str
    kind: str  # its type, in words
    meaning: str  # empty where the class does not say


def fields_of(schema: type) -> Iterator[Field]:
    """The fields of a dataclass, inherited ones too; those of dataclasses in them follow, under dotted names."""
    hints = get_type_hints(schema)
    meanings: dict[str, str] = {}
    for each in reversed(schema.__mro__):
        if is_dataclass(each):
            meanings |= meanings_in(each)
    for field in fields(schema):
        hint = hints[field.name]
        yield Field(field.name, describe(hint), meanings.get(field.name, ""))
        for inner in (part for part in (hint, *get_args(hint)) if isinstance(part, type) and is_dataclass(part)):
            place = field.name if inner is hint else f"{field.name}.NAME"
            yield from (each._replace(name=f"{place}.{each.name}") for each in fields_of(inner))


def meanings_in(schema: type) -> dict[str, str]:
    """The comments behind the fields that this class itself declares."""
    source = textwrap.dedent(inspect.getsource(schema))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    declared = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target): first_of(comments, node) for node in declared}


def first_of(comments: dict[int, str], node: ast.AnnAssign) -> str:
    """The comment on one of the lines that a field takes."""
    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return next((comments[line] for line in lines if line in comments), "")


def keywords_of(target: type) -> Iterator[Field]:
    """The keywords of a class of another library, which has no schema."""
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.default is not parameter.empty:
            yield Field(name, f"{type(parameter.default).__name__}, by default {parameter.default}", "")


def directories(sources: Iterable[Any]) -> list[Path]:
    """The directories of `hydra.runtime.config_sources`, in the order in which Hydra looks into them."""
    found = []
    for source in sources:
        if source.schema == "file":
            found.append(Path(source.path))
        elif source.schema == "pkg" and source.path:
            spec = find_spec(source.path)
            found += [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    return found


def file_of(group: str, option: str, places: Iterable[Path]) -> Path | None:
    """The YAML file of an option, as Hydra finds it: the first that there is."""
    paths = (place / group / f"{option}.yaml" for place in places)
    return next((path for path in paths if path.is_file()), None)


def comment_of(path: Path) -> str:
    """What stands in the comment lines at the top of a YAML file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top = lines[: next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    return " ".join(line.lstrip("# ") for line in top if not line.startswith("# @package"))


def target_of(group: str, option: str, places: list[Path]) -> str | None:
    """The dotted name of the class that an option, or one that it starts from, names."""
    path = file_of(group, option, places)
    values: Any = OmegaConf.to_container(OmegaConf.load(path)) if path is not None else {}
    if not isinstance(values, dict):
        return None
    if isinstance(values.get("_target_"), str):
        return str(values["_target_"])
    bases = [base for base in values.get("defaults", []) if isinstance(base, str) and base != "_self_"]
    found = (target_of(group, base, places) for base in reversed(bases) if base != option)
    return next((target for target in found if target is not None), None)


def values_of(group: str, option: str, places: list[Path]) -> dict[str, Any]:
    """What an option's file says, over what those say that it starts from; interpolations as they stand there."""
    path = file_of(group, option, places)
    own: Any = OmegaConf.to_container(OmegaConf.load(path)) if path is not None else {}
    bases = [base for base in own.pop("defaults", []) if isinstance(base, str) and base not in ("_self_", option)]
    values: dict[str, Any] = {}
    for base in bases:
        values |= values_of(group, base, places)
    values |= own
    return values


def first_sentence(text: str | None) -> str:
    """Up to the full stop before the next capital, or the end of the first paragraph."""
    paragraph = " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z`])", paragraph)[0]

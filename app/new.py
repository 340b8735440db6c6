"""`python -m app.new model my_lstm --into my_module`: the files of a plug-in of your own, which trains as it is."""

import argparse
import keyword
from importlib.util import find_spec
from pathlib import Path

from app.cli import told
from app.errors import ConfigError, StorageError

TEMPLATES = Path(__file__).parent / "templates"
KINDS = sorted(path.name for path in (TEMPLATES / "conf").iterdir())


def write_plugin(kind: str, name: str, into: Path) -> list[Path]:
    """Write `into/__init__.py` where it is missing, `into/NAME.py` and `into/conf/KIND/NAME.yaml`.

    Raises ConfigError for names that cannot be imported and for files that are there already, StorageError where
    nothing can be written. Nothing is ever overwritten.
    """
    package, files = into.resolve().name, [into / f"{name}.py", into / "conf" / kind / f"{name}.yaml"]
    faults = [f"{word}: must be a Python name, such as my_{kind}" for word in (name, package) if not is_name(word)]
    faults += [f"{path}: is there already; choose another name" for path in files if path.exists()]
    if not faults and not (into / "__init__.py").exists() and find_spec(package) is not None:
        faults.append(f"{package}: Python already has a package of this name; choose another for --into")
    if faults:
        raise ConfigError(faults)
    contents = {path: copied(path.relative_to(into), kind, name, package) for path in files}
    if not (into / "__init__.py").exists():
        contents = {into / "__init__.py": "", **contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; give another directory with --into") from None
    return list(contents)


def copied(place: Path, kind: str, name: str, package: str) -> str:
    """What stands at a place in the user's package: the template's text, with the user's names for its own."""
    text = (TEMPLATES / place.with_stem(f"my_{kind}")).read_text(encoding="utf-8")
    for own, users in (("app.templates", package), (f"my_{kind}", name), (class_name(f"my_{kind}"), class_name(name))):
        text = text.replace(own, users)
    return text


def class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def is_name(word: str) -> bool:
    return word.isidentifier() and word.isascii() and not keyword.iskeyword(word)


def main() -> None:
    parser = argparse.ArgumentParser(prog="app.new", description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="a config group")
    parser.add_argument("name", help="of the option, and of the Python file")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="a package of yours, new or not")
    args = parser.parse_args()
    with told("new"):
        for path in write_plugin(args.kind, args.name, args.into):
            print(f"written: {path}")
        chosen = f"{args.kind}={args.name}"
        print(
            f"use it: python -m app.train hydra.searchpath=[file://{args.into.resolve()}/conf] {chosen} task.data=DIR"
        )


if __name__ == "__main__":
    main()

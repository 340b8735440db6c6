"""Where a user's packages were when a run was trained, so that a later command can say which one it is not given."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from app.errors import ConfigError
from app.plugins import PACKAGES

FILE_NAME = "packages.json"
FOREIGN = re.compile(r"(\S*_target_=(\w+)\.\S*): not allowed")


def note_packages(run_dir: Path) -> None:
    """Write the directories of the packages that this command was given; nothing where there are none."""
    specs = {name: find_spec(name) for name in sorted(PACKAGES - {"app"})}
    found = {
        name: spec.submodule_search_locations[0]
        for name, spec in specs.items()
        if spec is not None and spec.submodule_search_locations
    }
    if found:
        (run_dir / FILE_NAME).write_text(json.dumps(found, indent=1), encoding="utf-8")


@contextmanager
def faults_of_run(run_dir: Path) -> Iterator[None]:
    """Say in a ConfigError which run it is about, and of a class that is not allowed where the run had it from."""
    try:
        yield
    except ConfigError as error:
        try:
            known = json.loads((run_dir / FILE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        raise ConfigError([f"{run_dir}: {with_directory(fault, known)}" for fault in error.faults]) from None


def with_directory(fault: str, known: dict[str, str]) -> str:
    match = FOREIGN.match(fault)
    if match is None or match[2] not in known:
        return fault
    directory = Path(str(known[match[2]]))
    gone = "" if directory.is_dir() else ", which is not there any more: bring it back"
    return f"{match[1]}: the run was trained with {directory}{gone}; add hydra.searchpath=[file://{directory}/conf]"

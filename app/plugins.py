"""A config node becomes an object here and nowhere else; the user's own packages are opened here.

`_target_` may name classes of this program, optimizers of `torch.optim`, and classes of the packages that the user
named by `hydra.searchpath` or `--config-dir` for this very run. Nothing read from a checkpoint adds to that list.
"""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from app.errors import ConfigError
from app.schema import bad_leaves, describe, join, nearest, typed, unknown_keys

PACKAGES = {"app"}  # packages whose classes may be targets; only `open_search_paths` adds to them
OPTIMIZERS = {"ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam"}
OPTIMIZERS |= {"RMSprop", "SGD"}


def configure(node: Mapping[str, Any], kind: type | str, key: str = "", check: bool = True) -> Callable[..., Any]:
    """The class that `node._target_` names, given its config and waiting for its run-time objects.

    `node` holds plain, resolved values and stands at `key` of the whole config. `kind` is the interface that the class
    must implement, or its dotted name. Raises `ConfigError` with all faults of the node. `check=False`: see `typed`.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError([f"{key or 'node'}: has no _target_ that names a class; choose one of the group's options"])
    values = dict(node)
    target = resolve(values.pop("_target_"), kind, key)
    parameters = inspect.signature(target).parameters
    if "cfg" in parameters:
        return partial(target, typed(schema_of(target, key), values, key, check))
    if faults := list(keyword_faults(parameters, values, key)):
        raise ConfigError(faults)
    return partial(target, **values)


def resolve(name: str, kind: type | str, key: str = "") -> type:
    """The class with this dotted name, if it is allowed and of this kind."""
    place = f"{join(key, '_target_')}={name}"
    module_name, _, attribute = name.rpartition(".")
    if not is_allowed(module_name, attribute):
        raise ConfigError([f"{place}: not allowed; name its package's directory by hydra.searchpath=[file://DIR/conf]"])
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError([f"{place}: no module named {error.name}"]) from None
    except Exception as error:  # whatever goes wrong in a user's module is told with its place there
        last = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{place}: {type(error).__name__} at {last.filename}:{last.lineno}: {error}"
        raise ConfigError([fault]) from None
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        classes = [word for word, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError([f"{place}: {module_name} has no such class{nearest(attribute, classes, module_name)}"])
    if not is_allowed(found.__module__, found.__qualname__):  # a name may stand for a class from elsewhere
        raise ConfigError([f"{place}: stands for {found.__module__}.{found.__qualname__}, which is not allowed"])
    interface = import_class(kind) if isinstance(kind, str) else kind
    if not issubclass(found, interface) or inspect.isabstract(found):
        raise ConfigError([f"{place}: must be a complete subclass of {interface.__module__}.{interface.__qualname__}"])
    return found


def is_allowed(module_name: str, attribute: str) -> bool:
    """Whether a class that lives at this place may be a target."""
    if module_name == "torch.optim" or module_name.startswith("torch.optim."):
        return attribute in OPTIMIZERS
    return module_name.partition(".")[0] in PACKAGES


def import_class(name: str) -> type:
    """The interface with this dotted name; the name is the program's own, never a user's."""
    module_name, _, attribute = name.rpartition(".")
    found: type = getattr(import_module(module_name), attribute)
    return found


def schema_of(target: type, key: str) -> type:
    """The dataclass that the constructor's `cfg` is annotated with."""
    try:
        schema = get_type_hints(target.__init__)["cfg"]  # type: ignore[misc]
    except (NameError, KeyError):
        schema = None
    if not (isinstance(schema, type) and is_dataclass(schema)):
        place = f"{join(key, '_target_')}={target.__module__}.{target.__qualname__}"
        raise ConfigError([f"{place}: its parameter cfg must be annotated with an importable dataclass"])
    return schema


def keyword_faults(parameters: Mapping[str, inspect.Parameter], values: Mapping[str, Any], key: str) -> Iterator[str]:
    """What is wrong with keywords for a class of another library, which has no schema: only its signature is known."""
    keywords = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    yield from unknown_keys(values, list(keywords), key)
    for name, value in values.items():
        default = keywords.get(name)
        if faults := list(bad_leaves(value, join(key, name))):
            yield from faults
        elif isinstance(default, tuple):
            numbers = isinstance(value, list) and all(fits(item, float) for item in value)
            if not numbers or len(value) != len(default):
                yield f"{join(key, name)}={value}: must be a list of {len(default)} numbers"
        elif default is not None and not fits(value, type(default)):
            yield f"{join(key, name)}={value}: must be {describe(type(default))}"


def fits(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def open_search_paths(sources: Iterable[Any]) -> None:
    """Let the packages that hold the user's config directories be imported and be targets.

    `sources` is `hydra.runtime.config_sources` of the composed config: `file://DIR/my_module/conf` opens package
    `my_module` of DIR, where it has an `__init__.py`; `pkg://my_module.conf` opens `my_module`. Nothing is imported.
    Raises `ConfigError` for a path that does not exist and for a package that would hide or be hidden by another.
    """
    named = [source for source in sources if source.provider.startswith(("hydra.searchpath", "command-line"))]
    faults = [fault for source in named for fault in open_search_path(source.schema, source.path)]
    if faults:
        raise ConfigError(faults)


def open_search_path(schema: str, path: str) -> Iterator[str]:
    if schema == "pkg":
        package = path.partition(".")[0].partition("/")[0]
        if not package or find_spec(package) is None:
            yield f"hydra.searchpath=[pkg://{path}]: no package {package} here; use file://, or set PYTHONPATH"
        else:
            PACKAGES.add(package)
        return
    directory = Path(path).resolve()
    home = directory.parent
    if not directory.is_dir():
        yield f"hydra.searchpath=[file://{path}]: no such directory"
    elif (home / "__init__.py").is_file():
        if str(home.parent) not in sys.path:
            sys.path.append(str(home.parent))
        spec = find_spec(home.name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent != home:
            yield f"hydra.searchpath=[file://{path}]: package {home.name} is also {spec and spec.origin}; rename yours"
        else:
            PACKAGES.add(home.name)

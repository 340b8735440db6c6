"""A config node becomes an object here and nowhere else."""

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from app.errors import ConfigError


def configure(node: Mapping[str, Any], kind: type) -> Callable[..., Any]:
    """The class that `node._target_` names, waiting for its run-time objects.

    `node` holds plain, resolved values. They are merged onto the dataclass that the constructor's `cfg` is annotated
    with; unknown, missing, ill-typed and forbidden values raise a `ConfigError` that names them all.
    """
    values = dict(node)
    target = resolve(str(values.pop("_target_")), kind)
    schema = get_type_hints(target.__init__).get("cfg")
    if schema is None:  # a class of another library, such as torch.optim.AdamW
        inspect.signature(target).bind_partial(**values)
        return partial(target, **values)
    names = [f.name for f in fields(schema)]
    faults = [f"{key}: unknown; nearest is {difflib.get_close_matches(key, names, 1)}" for key in values if key not in names]
    if faults:
        raise ConfigError(faults)
    try:
        cfg = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except OmegaConfBaseException as error:
        raise ConfigError([str(error)]) from None
    faults = [f"{k}={v}: not finite" for k, v in vars(cfg).items() if isinstance(v, float) and not math.isfinite(v)]
    faults += list(cfg.check()) if hasattr(cfg, "check") else []
    if faults:
        raise ConfigError(faults)
    return partial(target, cfg)


def resolve(name: str, kind: type) -> Any:
    """The class with this dotted name."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)

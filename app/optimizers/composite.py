"""Several optimizers as one: each has the parameters whose names fit its patterns, and a scheduler of its own."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from app.errors import ConfigError
from app.interfaces import LRScheduler
from app.plugins import configure


@dataclass
class GroupConfig:
    params: list[str] | None  # patterns of parameter names, such as `encoder.*`; null: all that no other group takes
    dims: int | None  # with patterns: take only parameters with this many dimensions; null: any
    optimizer: dict[str, Any]  # an option of the config group `optimizer`
    lr_scheduler: dict[str, Any]  # an option of the config group `lr_scheduler`

    def takes(self, name: str, parameter: Tensor) -> bool:
        fits = any(fnmatchcase(name, pattern) for pattern in self.params or ())
        return fits and self.dims in (None, parameter.dim())


@dataclass
class CompositeConfig:
    groups: dict[str, GroupConfig]  # every parameter must belong to exactly one; their order means nothing

    def check(self) -> Iterator[str]:
        if not self.groups:
            yield "groups={}: name at least one, such as groups.rest, with params, dims, optimizer and lr_scheduler"
        rests = [name for name, group in self.groups.items() if group.params is None]
        if len(rests) > 1:
            yield f"groups: params=null in {' and '.join(rests)}; only one group can take the rest"
        for name, group in self.groups.items():
            try:
                scheduler(group, name)
                optimizer(group, name)([("weight", torch.zeros(1, 1, requires_grad=True))])
            except ConfigError as error:
                yield from error.faults
            except (ValueError, TypeError, RuntimeError) as error:  # as optimizers refuse bad values
                yield f"groups.{name}.optimizer: {error}"


class Composite(torch.optim.Optimizer):
    """Made from named parameters; its `param_groups` are those of its parts. Choose `lr_scheduler=pass_through` to it.

    fairseq's model code marks each parameter with its group; here the configuration names them.
    Raises ConfigError for a parameter that none or several groups take, and for a group that has none.
    """

    def __init__(self, cfg: CompositeConfig, params: Iterable[tuple[str, Tensor]]):
        shares = share_out(cfg.groups, params)
        self.optimizers = {name: optimizer(cfg.groups[name], name)(share) for name, share in shares.items()}
        self.lr_schedulers = {name: scheduler(cfg.groups[name], name)(self.optimizers[name]) for name in shares}
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self.optimizers.values() for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for part in self.optimizers.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.optimizers.items():
            part.load_state_dict(state[name])
        self.param_groups = self._groups()  # loading made new ones


def optimizer(group: GroupConfig, name: str) -> Callable[..., torch.optim.Optimizer]:
    return configure(group.optimizer, torch.optim.Optimizer, f"groups.{name}.optimizer")


def scheduler(group: GroupConfig, name: str) -> Callable[..., LRScheduler]:
    return configure(group.lr_scheduler, LRScheduler, f"groups.{name}.lr_scheduler")


def share_out(
    groups: dict[str, GroupConfig], params: Iterable[tuple[str, Tensor]]
) -> dict[str, list[tuple[str, Tensor]]]:
    """Each group's parameters with their names, in the given order."""
    shares: dict[str, list[tuple[str, Tensor]]] = {name: [] for name in groups}
    rest = [name for name, group in groups.items() if group.params is None]
    faults = []
    for name, parameter in params:
        owners = [key for key, group in groups.items() if group.takes(name, parameter)] or rest
        if len(owners) == 1:
            shares[owners[0]].append((name, parameter))
        else:
            mend = "narrow their params" if owners else "add a group with params=null, which takes the rest"
            faults.append(f"optimizer.groups: {name} is taken by {' and '.join(owners) or 'none'}; {mend}")
    faults += [f"optimizer.groups.{name}.params: no parameter fits" for name, share in shares.items() if not share]
    if faults:
        raise ConfigError(faults)
    return shares

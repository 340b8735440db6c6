"""A part of the model on every worker (FSDP2). Imported where it is asked for: it takes half a second."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from app.config import DistributedConfig
from app.errors import ConfigError
from app.runtime.placement import Whole, layers_of


class Sharded(Whole):
    """Parameters, gradients and optimizer state in parts, one a worker (Zhao et al., 2023, "PyTorch FSDP").

    A layer's weights are gathered when it runs, in `dtype` (on the CPU as they are: its autocast does not suit norms to
    others); gradients are added in fp32. Modules called `layers` are lists of units, what is outside of them is one
    more. Validation and saving use a copy of the model on the CPU that was made before it was split, and gets the
    weights when they are asked for.
    """

    is_split = True

    def __init__(self, cfg: DistributedConfig, model: nn.Module, criterion: nn.Module, dtype: torch.dtype | None):
        key = "distributed.strategy=fsdp"
        if next(criterion.parameters(), None) is not None:
            raise ConfigError([f"{key}: this criterion has weights of its own, outside of any layer; choose ddp"])
        if dtype == torch.float16:
            raise ConfigError([f"{key}: the loss scale of fp16 belongs to one process; use precision=bf16, or ddp"])
        self.plain = copy.deepcopy(model).cpu()
        self.device = next(model.parameters()).device
        self.step = Step(model, criterion)
        mesh = init_device_mesh(self.device.type, (cfg.world_size,))
        gathered = dtype if self.device.type == "cuda" else None
        policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32)
        for unit in (*layers_of(model), self.step):
            sharded = fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=cfg.reshard_after_forward)
            sharded.set_force_sum_reduction_for_comms(True)
            sharded.set_gradient_divide_factor(1.0)
        self.named = dict(model.named_parameters())

    def begin(self, last: bool) -> None:
        """Before the backward pass of a batch; `last`: of the update's last one, whose end adds gradients up."""
        assert isinstance(self.step, FSDPModule)
        self.step.set_requires_gradient_sync(last)

    def finish(self) -> None:
        """Gradients are sums already."""

    def criterion(self, criterion: nn.Module) -> nn.Module:
        return SteppedCriterion(self.step)

    @contextmanager
    def opened(self, model: nn.Module, writes: bool) -> Iterator[nn.Module]:
        with torch.no_grad():
            for name, parameter in self.plain.named_parameters():
                parameter.copy_(_whole(self.named[name]))
            for buffer, own in zip(self.plain.buffers(), model.buffers()):
                buffer.copy_(own)
        self.plain.to(self.device)
        yield self.plain
        if writes:
            with torch.no_grad():
                for name, part in self.scattered(dict(self.plain.named_parameters())).items():
                    self.named[name].copy_(part)
                for buffer, own in zip(self.plain.buffers(), model.buffers()):
                    own.copy_(buffer)
        self.plain.cpu()

    def gathered(self, state: Any) -> Any:
        if isinstance(state, Tensor):
            return _whole(state)
        if isinstance(state, dict):  # workers may have read it in different orders
            return {key: self.gathered(state[key]) for key in sorted(state, key=str)}
        if isinstance(state, (list, tuple)):
            return [self.gathered(value) for value in state]
        return state

    def scattered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: _part(tensor, self.named.get(name)) for name, tensor in tensors.items()}

    def scattered_state(self, state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
        parts = {
            index: {name: _part(value, parameters[int(index)]) for name, value in values.items()}
            for index, values in state["state"].items()
        }
        return {**state, "state": parts}


class Step(nn.Module):
    """Model and criterion as one module, whose forward pass is all that a training step computes."""

    def __init__(self, model: nn.Module, criterion: nn.Module):
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(self, batch: Any) -> Any:
        return self.criterion(self.model, batch)


class SteppedCriterion(nn.Module):
    """A criterion that runs within its `Step`, so that weights are gathered for both."""

    def __init__(self, step: Step):
        super().__init__()
        self.step = [step]  # no submodule: its weights are the model's

    def forward(self, model: nn.Module, batch: Any) -> Any:
        return self.step[0](batch)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _part(value: Any, parameter: Tensor | None) -> Any:
    """This worker's part of a tensor of a parameter's shape; anything else as it is."""
    if not (isinstance(value, Tensor) and isinstance(parameter, DTensor) and value.shape == parameter.shape):
        return value
    on_device = value.detach().to(parameter.device)
    return distribute_tensor(on_device, parameter.device_mesh, parameter.placements, src_data_rank=None)

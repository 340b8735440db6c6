"""In which number format the model computes, and what that asks of the backward pass and of the optimizer."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.ranges import one_of, positive

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class PrecisionConfig:
    dtype: str  # fp32, bf16, fp16, or auto: bf16 where the machine computes it fast, else fp32; int8: see app.generate
    init_scale: float  # first loss scale of fp16
    growth_interval: int  # clean updates before the loss scale doubles

    def check(self) -> Iterator[str]:
        yield from one_of(self, "dtype", "auto", "fp32", "bf16", "fp16", "int8")
        yield from positive(self, "init_scale", "growth_interval")


class Precision:
    """Weights and optimizer state are fp32; products run in `dtype` through autocast (Micikevicius et al., 2018)."""

    def __init__(self, cfg: PrecisionConfig, device: torch.device):
        self.device = device
        self.name = ("bf16" if has_fast_bf16(device) else "fp32") if cfg.dtype == "auto" else cfg.dtype
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=cfg.init_scale, growth_interval=cfg.growth_interval, enabled=self.name == "fp16"
        )

    @property
    def dtype(self) -> torch.dtype | None:
        """In what products run; None: as the weights are."""
        return DTYPES.get(self.name)

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether products in bf16 run on hardware made for them."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("sve_bf16"))
    return False


class PreciseOptimizer:
    """An optimizer under a precision: scaled backward, averaged and clipped gradients, steps that may be skipped."""

    def __init__(self, inner: torch.optim.Optimizer, precision: Precision):
        self.inner, self.precision = inner, precision
        self.parameters = [p for group in inner.param_groups for p in group["params"]]

    def autocast(self) -> AbstractContextManager[Any]:
        return self.precision.autocast()

    def backward(self, loss: Tensor) -> None:
        self.precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def average_and_clip(self, factor: float, max_norm: float) -> Tensor:
        """Multiply gradients by `factor`, then clip their 2-norm to `max_norm` (0: do not). Returns the norm before."""
        self.precision.scaler.unscale_(self.inner)
        grads = [p.grad for p in self.parameters if p.grad is not None]
        total: Any = torch.nn.utils.get_total_norm(grads, foreach=True) * factor
        is_split = hasattr(total, "full_tensor")  # fsdp's: a part of it on each worker
        norm: Tensor = total.full_tensor() if is_split else total
        scale = torch.as_tensor(factor, device=norm.device)
        if max_norm > 0:
            scale = scale * (max_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, float(scale) if is_split else scale)
        return norm

    def step(self) -> None:
        """Update the parameters (fp16: unless a gradient overflowed) and drop the gradients."""
        self.precision.scaler.step(self.inner)
        self.precision.scaler.update()
        self.zero_grad()

    def skip(self) -> None:
        """Drop the gradients without a step; fp16 tries a smaller loss scale next."""
        self.precision.scaler.update()
        self.zero_grad()

    @property
    def is_finding_its_scale(self) -> bool:
        """Whether an overflow may be due to fp16's loss scale rather than to the run."""
        return self.precision.name == "fp16" and self.precision.scaler.get_scale() > 1e-4

    def zero_grad(self) -> None:
        self.inner.zero_grad(set_to_none=True)

    @property
    def lr(self) -> float:
        return float(self.inner.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.inner.state_dict(), "scaler": self.precision.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])

"""What `torch.optim` lacks, one file an optimizer; here is what those share that take one parameter at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class OneByOne(torch.optim.Optimizer, ABC):
    """An optimizer whose step is the same rule for every parameter that has a gradient."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, group["lr"])
        return loss

    @abstractmethod
    def update(self, p: Tensor, grad: Tensor, lr: float) -> None:
        """Change `p` in place."""

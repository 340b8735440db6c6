"""What hangs on training without being its flow. One file a callback; this page says what a callback is."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor


class Callback(ABC):
    """Named moments of training, nothing done at any of them. `trainer` is the running `app.trainer.Trainer`."""

    @abstractmethod
    def __init__(self, cfg: Any): ...

    def on_start(self, trainer: Any) -> None:
        """Before the first update, after a checkpoint was loaded."""

    def after_update(self, trainer: Any) -> None:
        """After every update of the parameters."""

    def before_validation(self, trainer: Any) -> None: ...

    def after_validation(self, trainer: Any, metrics: dict[str, float]) -> None: ...

    def after_epoch(self, trainer: Any) -> None: ...

    def on_end(self, trainer: Any) -> None:
        """After the last update, also when a signal ended the run."""

    def averaged(self) -> dict[str, Tensor] | None:
        """Weights that translate better than the newest ones, by the model's parameter names; saved beside them."""
        return None

    def load_averaged(self, weights: dict[str, Tensor]) -> None:
        """What `averaged` returned when the checkpoint was saved."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings that a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

"""MyCallbacks: say here what is done, and at which moment of training."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.callbacks import Callback
from app.ranges import positive

logger = logging.getLogger(__name__)


@dataclass
class MyCallbacksConfig:
    every: int  # updates between two lines

    def check(self) -> Iterator[str]:
        yield from positive(self, "every")


class MyCallbacks(Callback):
    """Logs the size of the weights. `trainer` is `app.trainer.Trainer`; see `app.callbacks` for the other moments."""

    def __init__(self, cfg: MyCallbacksConfig):
        self.cfg = cfg

    def after_update(self, trainer: Any) -> None:
        if trainer.num_updates % self.cfg.every == 0:
            size = sum(float(p.detach().square().sum()) for p in trainer.model.parameters()) ** 0.5
            logger.info("update %d: the weights have the 2-norm %.4f", trainer.num_updates, size)

"""Which updates are taken: not those whose numbers are not finite, nor, if asked, those whose loss leaps."""

import json
import logging
import math
import statistics
from collections import deque
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from app.errors import NumericsError

logger = logging.getLogger(__name__)

HISTORY = 128  # updates that a loss is compared with (OLMo's rule; at least half of them must be there)
SIGMAS = 6.0  # standard deviations above their mean that are a leap


class Verdict(Enum):
    TAKE = "take"
    SKIP = "skip"
    ROLL_BACK = "roll back"


class Numerics:
    """Judges updates by their loss and gradient norm. All ranks give it the same numbers, and get the same verdict."""

    def __init__(self, on_loss_spike: str, max_skipped: int):
        self.on_loss_spike, self.max_skipped = on_loss_spike, max_skipped
        self.losses: deque[float] = deque(maxlen=HISTORY)
        self.num_skipped = 0  # updates in a row that were not finite
        self.skipped: deque[list[int]] = deque(maxlen=max_skipped)  # the samples of these, of this rank

    def judge(self, num_updates: int, loss: float, gnorm: float, ids: Callable[[], list[int]]) -> Verdict:
        """`loss` a token (or sentence) of the update after `num_updates`; `ids` tells its samples on this rank."""
        if not (math.isfinite(loss) and math.isfinite(gnorm)):
            self.num_skipped += 1
            self.skipped.append(ids())
            what = "gradients" if math.isfinite(loss) else "loss"
            logger.warning("update %d: %s not finite, skipped", num_updates + 1, what)
            return Verdict.SKIP
        self.num_skipped = 0
        self.skipped.clear()
        leaps = self.on_loss_spike != "off" and self.is_leap(loss)
        self.losses.append(loss)
        if not leaps:
            return Verdict.TAKE
        done = {"log": "taken all the same", "skip": "skipped", "rollback": "going back to the last checkpoint"}
        logger.warning("update %d: the loss leaps to %.4g, %s", num_updates + 1, loss, done[self.on_loss_spike])
        return {"skip": Verdict.SKIP, "rollback": Verdict.ROLL_BACK}.get(self.on_loss_spike, Verdict.TAKE)

    def is_leap(self, loss: float) -> bool:
        """Whether a loss stands more than six standard deviations above the mean of the last 128."""
        if len(self.losses) < HISTORY // 2:
            return False
        return loss - statistics.fmean(self.losses) > SIGMAS * statistics.pstdev(self.losses)

    @property
    def is_hopeless(self) -> bool:
        """Whether too many updates in a row were not finite."""
        return self.num_skipped >= self.max_skipped

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "num_skipped": self.num_skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = deque(state["losses"], maxlen=HISTORY)
        self.num_skipped = state["num_skipped"]


def note_skipped(path: Path, num_updates: int, skipped: list[list[list[int]]]) -> None:
    """Write the samples of the updates that were skipped last; `skipped` holds ranks, their updates, and samples."""
    by_update = [sorted(sum(ranks, [])) for ranks in zip(*skipped)]
    try:
        path.write_text(json.dumps({"num_updates": num_updates, "samples": by_update}) + "\n", encoding="utf-8")
    except OSError as error:
        logger.warning("%s: %s", path, error.strerror)


def give_up(num_updates: int, times: int, lr: float, path: Path) -> NumericsError:
    """The error that ends a run."""
    return NumericsError(
        f"update {num_updates + 1}: loss or gradients were not finite {times} times in a row; lower "
        f"optimizer.lr (now {lr:g}), set trainer.clip_norm, or use precision=fp32; the samples are in {path}"
    )

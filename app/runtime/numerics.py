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
MAX_ROLLBACKS = 5  # without getting past the update that leapt: what came is no single batch, and data only go on


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
        self.num_rollbacks = 0  # since an update beyond the last leap was taken
        self.leapt_at = 0  # the number of updates that the farthest leap of these followed

    def judge(self, num_updates: int, loss: float, gnorm: float, ids: Callable[[], list[int]]) -> Verdict:
        """`loss` a token (or sentence) of the update after `num_updates`; `ids` tells its samples on this rank.

        Raises NumericsError where going back does not help.
        """
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
            if num_updates >= self.leapt_at:
                self.num_rollbacks = 0
            return Verdict.TAKE
        if self.on_loss_spike == "rollback":
            self.count_rollback(num_updates)
        done = {"log": "taken all the same", "skip": "skipped", "rollback": "going back to the last checkpoint"}
        logger.warning("update %d: the loss leaps to %.4g, %s", num_updates + 1, loss, done[self.on_loss_spike])
        return {"skip": Verdict.SKIP, "rollback": Verdict.ROLL_BACK}.get(self.on_loss_spike, Verdict.TAKE)

    def count_rollback(self, num_updates: int) -> None:
        self.leapt_at = max(num_updates, self.leapt_at)
        self.num_rollbacks += 1
        if self.num_rollbacks > MAX_ROLLBACKS:
            raise NumericsError(
                f"update {num_updates + 1}: the loss leaps again after {MAX_ROLLBACKS} returns to the last checkpoint "
                f"that never got past update {self.leapt_at + 1}; lower optimizer.lr, set trainer.clip_norm, look at "
                "the data that come now, or set trainer.on_loss_spike=skip"
            )

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
        rollbacks = {"num_rollbacks": self.num_rollbacks, "leapt_at": self.leapt_at}
        return {"losses": list(self.losses), "num_skipped": self.num_skipped, **rollbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = deque(state["losses"], maxlen=HISTORY)
        self.num_skipped = state["num_skipped"]
        self.num_rollbacks, self.leapt_at = state.get("num_rollbacks", 0), state.get("leapt_at", 0)


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

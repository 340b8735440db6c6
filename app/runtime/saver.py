"""When checkpoints are written, and how training goes on meanwhile."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from types import TracebackType

from app.config import CheckpointConfig
from app.errors import StorageError
from app.runtime.checkpoint import Checkpoint, Checkpoints, Snapshot

logger = logging.getLogger(__name__)


class Saver:
    """Writes checkpoints in a thread, one at a time; a run is held up for a copy in memory only.

    A disk that refuses one is told of, and the run goes on without it until the next interval
    (`checkpoint.on_write_error=warn`), or ends at its next update (`stop`: StorageError). At the end of `with` nothing
    is being written any more.
    """

    def __init__(self, cfg: CheckpointConfig, checkpoints: Checkpoints):
        self.cfg, self.checkpoints = cfg, checkpoints
        self.newest = -1  # the update of the newest checkpoint that is whole on disk
        self._writing: Future[Checkpoint] | None = None
        self._saved_at = time.monotonic()

    def __enter__(self) -> "Saver":
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        with suppress(StorageError) if error is not None else nullcontext():  # the first error is the one to tell
            self.wait()

    def is_due(self, num_updates: int) -> bool:
        """Whether an interval of updates has passed. Raises StorageError for `stop`."""
        if self._writing is not None and self._writing.done():
            self.wait()
        return self.cfg.save_interval_updates > 0 and num_updates % self.cfg.save_interval_updates == 0

    def is_late(self) -> bool:
        """Whether an interval of minutes has passed, by this process's clock."""
        return 0 < self.cfg.save_interval_minutes <= (time.monotonic() - self._saved_at) / 60

    def save(self, snapshot: Snapshot, last: bool) -> None:
        """Write it when the save before is done. The `last` one is waited for, and raises StorageError in any case."""
        self.wait()
        self._saved_at = time.monotonic()
        self._writing = self._thread.submit(self.checkpoints.write, snapshot, 1 if last else 2)
        if last:
            self.newest = self._writing.result().num_updates
        elif not self.cfg.save_async:
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            self.newest = writing.result().num_updates
        except StorageError as error:
            if self.cfg.on_write_error == "stop":
                raise
            logger.warning("%s; training goes on, and saves again at the next interval", error)

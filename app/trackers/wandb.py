"""Weights & Biases (https://docs.wandb.ai). Works without an account, and never waits long for a server."""

import logging
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.ranges import one_of, positive
from app.trackers import Tracker

logger = logging.getLogger(__name__)

SECRET = re.compile(r"(^|_)(key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)


@dataclass
class WandbConfig:
    project: str  # project that the run belongs to
    entity: str | None  # team or user that owns the project; null: the account's default
    group: str | None  # runs with the same group are shown together; a sweep's are, by its name; null: none
    name: str | None  # the run's name; null: its directory's
    tags: list[str]  # words to find the run by
    mode: str  # online: offline all the same where there is no account or no server; offline. $WANDB_MODE wins
    init_timeout: float  # seconds to wait for the server at the start before going on offline
    finish_timeout: float  # seconds to wait at the end for what is not uploaded yet; `wandb sync` can upload it later

    def check(self) -> Iterator[str]:
        yield from one_of(self, "mode", "online", "offline")
        yield from positive(self, "init_timeout", "finish_timeout")


class WandbTracker(Tracker):
    """Metrics as `train/<name>` and `valid/<name>` over the number of updates.

    The run's id stands in `wandb/run_id` of the run directory: a resumed run goes on in the same W&B run.
    """

    def __init__(self, cfg: WandbConfig, run_dir: Path):
        self.cfg, self.run_dir = cfg, run_dir
        self.run: Any = None

    def start(self, config: dict[str, Any], num_updates: int) -> None:
        import wandb

        config = without_secrets(config)
        mode = os.environ.get("WANDB_MODE", self.cfg.mode)
        self._set_up()
        if mode == "online" and not wandb.login(prompt=False, verify=False):  # asks neither a person nor the server
            logger.warning("no account on this machine (`wandb login` adds one); writing offline")
            mode = "offline"
        try:
            self.run = self._init(config, mode)
        except Exception as error:
            if mode != "online":
                raise
            logger.warning("%s; writing offline", str(error).splitlines()[0])
            wandb.teardown()  # else the id counts as in use
            self._set_up()
            self.run = self._init(config, "offline")
        logger.info("%s", self.run.url or f"offline; to upload: wandb sync {self.run.settings.sync_dir}")

    def log(self, kind: str, num_updates: int, metrics: dict[str, float]) -> None:
        self.run.log({f"{kind}/{name}": value for name, value in metrics.items()}, step=num_updates)

    def finish(self) -> None:
        if self.run is not None:
            self.run.finish()

    def _set_up(self) -> None:
        """Settings of this process. They are made before `wandb.init`, because logging in reads them too."""
        import wandb

        timeouts = {"init_timeout": self.cfg.init_timeout, "finish_timeout": self.cfg.finish_timeout}
        wandb.setup(wandb.Settings(silent=True, console="off", **timeouts))

    def _init(self, config: dict[str, Any], mode: Any) -> Any:
        import wandb

        return wandb.init(
            project=self.cfg.project,
            entity=self.cfg.entity,
            group=self.cfg.group,
            name=self.cfg.name or self.run_dir.name,
            tags=self.cfg.tags,
            id=self._run_id(),
            resume="allow",
            dir=self.run_dir,
            config=config,
            mode=mode,
        )

    def _run_id(self) -> str:
        path = self.run_dir / "wandb" / "run_id"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
        return path.read_text(encoding="utf-8")


def without_secrets(node: Any) -> Any:
    """A copy of a configuration in which texts under keys such as `api_key` or `password` are blotted out."""
    if isinstance(node, dict):
        return {
            key: "***" if isinstance(value, str) and SECRET.search(str(key)) else without_secrets(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [without_secrets(value) for value in node]
    return node

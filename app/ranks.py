"""A process of `app.train` that its own launcher started: it gets resolved values instead of a command line."""

import logging
from pathlib import Path
from typing import Any

from app.check import configure_all
from app.config import TrainConfig
from app.errors import Stopped, UserError
from app.plugins import PACKAGES
from app.runtime.logs import log_to_file, log_to_stderr

logger = logging.getLogger("app.train")


def run_rank(values: dict[str, Any], packages: set[str]) -> float | None:
    """Train. `packages` are those whose classes may be targets. Tells errors, and exits with their code."""
    from app.train import run

    PACKAGES.update(packages)
    log_to_stderr()
    log_to_file(Path(values["run_dir"]) / "train.log")
    try:
        return run(*configure_all(values, TrainConfig))
    except UserError as error:
        if not isinstance(error, Stopped):
            logger.error("%s", error)
        raise SystemExit(error.exit_code) from None

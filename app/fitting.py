"""`batching.max_tokens=auto`: the largest batches that memory holds, found once in a run, and kept."""

import json
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from app.config import AUTO, TrainConfig
from app.errors import OutOfMemory, StorageError
from app.run_config import CONFIG, save_config, shaping_changes, stored_run
from app.runtime.checkpoint import Checkpoints
from app.runtime.out_of_memory import rehearse
from app.runtime.room import room_on
from app.trainer import Trainer

logger = logging.getLogger(__name__)

FOUND = "max_tokens.json"  # in the run directory: the number that was found there
LEAST = 256  # tokens that are tried first, or as many as the longest sentence has
STATES = 3  # numbers that training keeps for each weight beside its gradient: two moments and an average


def take_found(cfg: TrainConfig) -> None:
    """A run that goes on has the batches that it had: in place of `auto` stands what was found for this directory.

    A directory with checkpoints keeps its number, whoever gave it. One without is a start that was broken off: its
    number was found, and is the same again where nothing else has changed.
    """
    run_dir = Path(cfg.run_dir)
    if cfg.batching.max_tokens != AUTO or not (run_dir / CONFIG).is_file():
        return
    values = stored_run(run_dir)
    number = values.get("batching", {}).get("max_tokens")
    if type(number) is not int:
        return
    others_changed = shaping_changes(values, cfg).keys() - {"batching.max_tokens"}
    if not Checkpoints(cfg.checkpoint, run_dir).all() and (number != found_in(run_dir) or others_changed):
        return
    cfg.batching.max_tokens = number
    logger.info("batching.max_tokens=auto: %d, as before in %s", number, run_dir)


def found_in(run_dir: Path) -> int | None:
    try:
        number = json.loads((run_dir / FOUND).read_text())
    except (OSError, ValueError):
        return None
    return number if isinstance(number, int) else None


def find_max_tokens(cfg: TrainConfig, trainer: Trainer) -> None:
    """Put a number in place of `auto`, in `cfg` and in the run directory: the same one on all ranks.

    Batches of this epoch, formed with one limit after another, are trained on and the gradients dropped. Raises
    OutOfMemory where not even the smallest limit fits.
    """
    task, workers, batching = trainer.task, trainer.workers, cfg.batching
    with workers.first_goes_ahead():
        dataset = task.dataset(cfg.trainer.train_split)
    lengths = [getattr(dataset, f"{side}_lengths", np.zeros(1)) for side in ("source", "target")]
    least = max(LEAST, *(int(side.max(initial=0)) for side in lengths))
    room = room_on(trainer.device, reserve(trainer), int(os.environ.get("LOCAL_WORLD_SIZE", workers.world_size)))

    def size_of(limit: int) -> int:
        batching.max_tokens = limit
        batch = task.get_batch_iterator(dataset, trainer.epoch).longest()
        step = partial(rehearse, trainer.forward_backward, batch, trainer.model, trainer.optimizer.zero_grad)
        size = batch.src_tokens.numel() + batch.prev_output_tokens.numel()
        return size if all(workers.gather(room.fits(step, size))) else 0

    logger.info("batching.max_tokens=auto: trying batches of %d tokens and more on %s", least, trainer.device)
    found = largest(size_of, least, room.most_tokens)
    batching.max_tokens = found
    logger.info("batching.max_tokens=auto: %d; the same command goes on with it", found)
    if workers.is_first:
        note_found(cfg)


def largest(size_of: Callable[[int], int], least: int, most: int) -> int:
    """The largest limit, to a sixteenth, whose largest batch fits; `size_of` gives its size, or 0 where it does not.

    From `least` it is doubled up to `most`, or until batches do not grow any more: all sentences are in one.
    """
    limit, size = least, size_of(least)
    if not size:
        mend = "leave long sentences out with task.max_source_positions, or choose a smaller model"
        raise OutOfMemory(f"batching.max_tokens=auto: not even batches of {least} tokens fit into memory; {mend}")
    too_many = most + 1
    while limit < most:
        twice = min(2 * limit, most)
        larger = size_of(twice)
        if not larger:
            too_many = twice
            break
        if larger <= size:
            return limit
        limit, size = twice, larger
    while limit < most and too_many - limit > max(8, limit // 16):
        middle = (limit + too_many) // 2
        limit, too_many = (middle, too_many) if size_of(middle) else (limit, middle)
    return limit


def reserve(trainer: Trainer) -> int:
    """Bytes that training needs and a step before the first update does not show."""
    numbers = STATES
    if trainer.workers.world_size > 1:
        numbers += 1  # gradients on their way
    if trainer.device.type == "cpu":
        numbers += 1 + STATES  # the copy that a checkpoint is written from
    size: int = sum(p.numel() * p.element_size() for p in trainer.optimizer.parameters)
    return numbers * size


def note_found(cfg: TrainConfig) -> None:
    """Write the number where `take_found` reads it. Raises StorageError."""
    path = Path(cfg.run_dir) / FOUND
    try:
        path.write_text(json.dumps(cfg.batching.max_tokens))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; free space there or set run_dir elsewhere") from None
    save_config(cfg, Path(cfg.run_dir))

"""`python -m app.train`: train a model, or go on with a run that was stopped."""

import logging
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli import command
from app.config import AUTO, TrainConfig
from app.errors import StorageError

if TYPE_CHECKING:  # torch comes later, so that --help is quick
    from app.interfaces import Task
    from app.runtime.distributed import Workers

logger = logging.getLogger("app.train")  # as a program this module is __main__


def run(cfg: TrainConfig, plugins: dict[str, Any]) -> float | None:
    """Returns the best value of `checkpoint.metric`, for sweepers. Starts the processes that `distributed` asks for."""
    from app.runtime.distributed import find_place, joined

    if cfg.distributed.strategy != "none" and find_place() is None:
        from app.plugins import PACKAGES
        from app.ranks import run_rank
        from app.runtime.launch import launch

        return launch(run_rank, cfg.distributed.nproc_per_node, asdict(cfg), PACKAGES)
    with joined(cfg.distributed) as workers:
        return train(cfg, plugins, workers)


def train(cfg: TrainConfig, plugins: dict[str, Any], workers: "Workers") -> float | None:
    """What every worker does; the first one alone prepares and writes."""
    import torch

    from app.assembly import build, num_parameters
    from app.beginnings import resume, start_from
    from app.fitting import find_max_tokens
    from app.runtime.lock import locked
    from app.runtime.memory import keep_buffers, keep_few_kernels
    from app.runtime.outcome import noted
    from app.summary import conclude
    from app.trackers.fanout import Trackers
    from app.trainer import Trainer

    keep_buffers()
    keep_few_kernels()
    if cfg.trainer.num_threads:
        torch.set_num_threads(cfg.trainer.num_threads)
    run_dir = Path(cfg.run_dir)
    with ExitStack() as held:
        if workers.is_first:
            held.enter_context(locked(run_dir))
            held.enter_context(noted(run_dir))
        with workers.first_goes_ahead():
            task = prepared_task(cfg, plugins, workers.is_first)
        parts = build(cfg, plugins, task, workers)
        trackers = Trackers(plugins["tracker"], run_dir, workers.is_first)
        decodes = cfg.trainer.decode_valid and plugins["scorer"]
        evaluate = evaluation(cfg, plugins, task, workers) if decodes else None
        trainer = Trainer(cfg.trainer, cfg.checkpoint, cfg.seed, run_dir, parts, trackers, evaluate)
        with workers.first_goes_ahead():  # what is damaged is moved aside once
            newest = trainer.checkpoints.newest()
        if newest is not None:
            resume(cfg, trainer, newest)
        elif cfg.checkpoint.finetune_from is not None:
            start_from(cfg, trainer, Path(cfg.checkpoint.finetune_from))
        if cfg.batching.max_tokens == AUTO:
            find_max_tokens(cfg, trainer)
        trackers.start(asdict(cfg), trainer.num_updates)
        try:
            trainer.train()
        finally:
            trackers.finish()
        if workers.is_first:
            told = task.generates, task.refines, task.lang_pairs
            conclude(run_dir, cfg.checkpoint, num_parameters(parts.model), *told)
    return trainer.judgement.best


def prepared_task(cfg: TrainConfig, plugins: dict[str, Any], is_first: bool) -> "Task":
    """The task with its vocabularies: those of the run that is gone on with, else those learnt from the text."""
    from app.assembly import ASSETS
    from app.fitting import take_found
    from app.run_config import check_same_run, run_dir_of, save_config
    from app.runtime.checkpoint import Checkpoints

    run_dir = Path(cfg.run_dir)
    take_found(cfg)
    there = Checkpoints(cfg.checkpoint, run_dir).all()
    if there and is_first:
        check_same_run(cfg, run_dir)
    first = None if cfg.checkpoint.finetune_from is None else Path(cfg.checkpoint.finetune_from)
    task: Task = plugins["task"](plugins["tokenizer"], cfg.batching)
    if there or first is not None:  # pieces keep the numbers that the weights know them by
        task.load((run_dir if there or first is None else run_dir_of(first)) / ASSETS)
    task.prepare(Path(cfg.cache_dir))
    if is_first:
        save_config(cfg, run_dir)
        if not there:  # what a run is gone on with must never be half written
            save_task(task, run_dir / ASSETS)
    return task


def save_task(task: "Task", directory: Path) -> None:
    """Write what the task knows, to the disk itself. Raises StorageError."""
    from app.runtime.storage import sync_all

    try:
        task.save(directory)
        sync_all(directory)
    except OSError as error:
        raise StorageError(f"{directory}: {error.strerror}; free space there or set run_dir elsewhere") from None


def evaluation(cfg: TrainConfig, plugins: dict[str, Any], task: "Task", workers: "Workers") -> Any:
    """Scores of real translations of the validation split; None where the task has no references."""
    from app.evaluation import of_all_pairs, translate_and_score
    from app.inference import load_search

    split = cfg.trainer.valid_split
    parts = {pair: task.of_pair(pair) for pair in task.lang_pairs} or {"": task}
    texts = {pair: found for pair, part in parts.items() if (found := part.references(split)) is not None}
    if not texts:
        return None
    search = load_search(plugins["search"], task.target_vocabulary, cfg.trainer.device)
    scorers = {name: make() for name, make in plugins["scorer"].items()}

    def evaluate(model: Any) -> dict[str, float]:
        return of_all_pairs({pair: scores_of(pair, model) for pair in texts})

    def scores_of(pair: str, model: Any) -> dict[str, float]:
        generator = parts[pair].build_generator([model], search)
        left_out = set(generator.too_long(texts[pair][0]))
        if left_out:
            logger.warning("%s: %d too long to be translated are left out of the scores", split, len(left_out))
        source, references = ([line for i, line in enumerate(lines) if i not in left_out] for lines in texts[pair])
        _, scores = translate_and_score(generator, source, references, scorers, workers)
        return {score.name: score.value for score in scores}

    return evaluate


main = command("train", run)

if __name__ == "__main__":
    main()

"""`python -m app.train`: train a model, or go on with a run that was stopped."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.cli import command
from app.config import TrainConfig

logger = logging.getLogger("app.train")  # as a program this module is __main__


def run(cfg: TrainConfig, plugins: dict[str, Any]) -> float | None:
    """Returns the best value of `checkpoint.metric`, for sweepers."""
    import torch

    from app.assembly import ASSETS, build, num_parameters
    from app.run_config import check_same_run, run_dir_of, save_config
    from app.runtime.checkpoint import Checkpoints, find
    from app.runtime.lock import locked
    from app.runtime.memory import keep_buffers
    from app.runtime.outcome import noted
    from app.summary import conclude
    from app.trackers.fanout import Trackers
    from app.trainer import Trainer

    keep_buffers()
    if cfg.trainer.num_threads:
        torch.set_num_threads(cfg.trainer.num_threads)
    run_dir = Path(cfg.run_dir)
    with locked(run_dir), noted(run_dir):
        there = Checkpoints(cfg.checkpoint, run_dir).all()
        if there:
            check_same_run(cfg, run_dir)
        first = None if cfg.checkpoint.finetune_from is None else Path(cfg.checkpoint.finetune_from)
        task = plugins["task"](plugins["tokenizer"], cfg.batching)
        if there or first is not None:  # pieces keep the numbers that the weights know them by
            task.load((run_dir if there or first is None else run_dir_of(first)) / ASSETS)
        task.prepare(Path(cfg.cache_dir))
        save_config(cfg, run_dir)
        task.save(run_dir / ASSETS)
        parts = build(cfg, plugins, task)
        trackers = Trackers(plugins["tracker"], run_dir)
        evaluate = evaluation(cfg, plugins, task) if cfg.trainer.decode_valid and plugins["scorer"] else None
        trainer = Trainer(cfg.trainer, cfg.checkpoint, cfg.seed, run_dir, parts, trackers, evaluate)
        newest = trainer.checkpoints.newest()
        if newest is not None:
            trainer.load(newest)
            logger.info("going on from %s", newest.path)
        elif first is not None:
            start = find(first, cfg.checkpoint.metric, cfg.checkpoint.mode)
            start.load_model(parts.model, start.inference_weights)
            logger.info("starting from the weights of %s", start.path)
        trackers.start(asdict(cfg), trainer.num_updates)
        try:
            trainer.train()
        finally:
            trackers.finish()
        conclude(run_dir, cfg.checkpoint, num_parameters(parts.model))
    return trainer.best


def evaluation(cfg: TrainConfig, plugins: dict[str, Any], task: Any) -> Any:
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
        _, scores = translate_and_score(generator, source, references, scorers)
        return {score.name: score.value for score in scores}

    return evaluate


main = command("train", run)

if __name__ == "__main__":
    main()

"""Tiny runs in this process: a corpus of invented words, composed and checked as the command does it."""

import random
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from app.cli import configure_node, store_schema
from app.compose import CONF
from app.config import BatchingConfig, CheckpointConfig

TINY = [
    "task.source_lang=xx",
    "task.target_lang=yy",
    "task.joined_dictionary=false",
    "task.num_workers=1",
    "task.max_source_positions=64",
    "task.max_target_positions=64",
    "tokenizer=word",
    "model=transformer_tiny",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "model.encoder_embed_dim=32",
    "precision=fp32",
    "lr_scheduler.warmup_updates=10",
    "optimizer.lr=5e-3",
    "batching.max_tokens=1024",
    "trainer.log_interval=5",
    "trainer.decode_valid=false",
    "trainer.num_threads=1",
]


def write_corpus(directory: Path, seed: int = 1, sizes: tuple[int, int, int] = (300, 20, 20)) -> Path:
    """Pairs of files in which every target is its source backwards, in capitals."""
    rng = random.Random(seed)
    words = [f"{a}{b}" for a in "bdgk" for b in "aeiou"]
    directory.mkdir(parents=True, exist_ok=True)
    for split, size in zip(("train", "valid", "test"), sizes, strict=True):
        lines = [rng.choices(words, k=rng.randint(1, 9)) for _ in range(size)]
        (directory / f"{split}.xx").write_text("".join(" ".join(line) + "\n" for line in lines))
        (directory / f"{split}.yy").write_text("".join(" ".join(line[::-1]).upper() + "\n" for line in lines))
    return directory


def checkpoint_config(**changes: Any) -> CheckpointConfig:
    """The section `checkpoint` of `conf/train.yaml`, with changes."""
    return CheckpointConfig(**(section("checkpoint") | changes))


def batching_config(**changes: Any) -> BatchingConfig:
    """The section `batching` of `conf/train.yaml`, in one thread and of whole epochs, with changes."""
    return BatchingConfig(**(section("batching") | {"seed": 1, "prefetch": 0, "window": 0} | changes))


def section(name: str) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml")[name])
    return dict(values)


def configured(overrides: list[str], config_name: str = "train") -> tuple[Any, dict[str, Any]]:
    """What a command's function is given for these overrides."""
    store_schema(config_name)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return configure_node(compose(config_name, overrides), config_name)


def train(directory: Path, *overrides: str, corpus: Path | None = None) -> Path:
    """Train in `directory/run` on `directory/corpus` and return the run's directory."""
    from app.train import run

    corpus = corpus or directory / "corpus"
    if not corpus.is_dir():
        write_corpus(corpus)
    run_dir = directory / "run"
    given = [f"task.data={corpus}", f"cache_dir={directory / 'cache'}", f"run_dir={run_dir}"]
    run(*configured([*TINY, *given, *overrides]))
    return run_dir

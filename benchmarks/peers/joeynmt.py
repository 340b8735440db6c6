"""JoeyNMT. It has no bf16 on CPUs, and its batches of tokens are not made of sentences of one length."""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import (
    DIM,
    DROPOUT,
    ENDLESS,
    FFN,
    HEADS,
    LAYERS,
    LR,
    SMOOTHING,
    TOKENS,
    WARMUP,
    Corpus,
    Peer,
    say,
)

SPECIAL = ["<unk>", "<pad>", "<s>", "</s>"]


class JoeyNMT(Peer):
    name = "joeynmt"
    installs = (("torch", "setuptools<81", "importlib_metadata", "joeynmt==2.3.0"),)  # the second two: not declared

    def command(self, python: Path, corpus: Corpus, directory: Path, precision: str) -> list[str]:
        words = directory / "pieces.txt"
        words.write_text("".join(f"{piece}\n" for piece in [*SPECIAL, *corpus.pieces]), encoding="utf-8")
        text = {"max_length": 250, "level": "word", "voc_file": str(words)}
        sides = {side: {"lang": lang, **text} for side, lang in (("src", corpus.source), ("trg", corpus.target))}
        data = {
            "train": str(corpus.directory / "train"),
            "dev": str(corpus.directory / "valid"),
            "dataset_type": "plain",
        }
        side: dict[str, Any] = {"type": "transformer", "num_layers": LAYERS, "num_heads": HEADS, "hidden_size": DIM}
        side |= {"ff_size": FFN, "dropout": DROPOUT, "embeddings": {"embedding_dim": DIM, "scale": True}}
        training = {
            "optimizer": "adam",
            "adam_betas": [0.9, 0.98],
            "learning_rate": LR,
            "scheduling": "warmupinversesquareroot",
            "learning_rate_warmup": WARMUP,
            "learning_rate_min": 0.0,
            "label_smoothing": SMOOTHING,
            "normalization": "tokens",
            "batch_size": TOKENS,
            "batch_type": "token",
            "epochs": ENDLESS,
            "validation_freq": ENDLESS,
            "logging_freq": 1,
        }
        config = {
            "name": "peer",
            "joeynmt_version": "2.3.0",
            "model_dir": str(directory / "run"),
            "use_cuda": False,
            "data": {**data, **sides},
            "testing": {},
            "training": training,
            "model": {"initializer": "xavier_uniform", "tied_embeddings": True, "tied_softmax": True}
            | {"encoder": side, "decoder": side},
        }
        path = directory / "config.yaml"
        path.write_text(json.dumps(config, indent=1))
        return [str(python), "-m", __name__, str(path)]


def train(config: str) -> None:
    """In the peer's environment: its own command, telling the tokens of each update in place of its log's line."""
    import sys

    from joeynmt.__main__ import main
    from joeynmt.training import TrainManager

    def log_scores(self: Any, epoch: int, seconds: float, tokens_before: int, *_: Any) -> None:
        say(self.stats.total_tokens - tokens_before)

    TrainManager._log_scores = log_scores
    sys.argv = ["joeynmt", "train", config, "--skip-test"]
    main()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    train(parser.parse_args().config)

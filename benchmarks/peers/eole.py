"""eole, the successor of OpenNMT-py, by its own command."""

import json
import re
from pathlib import Path

from benchmarks.peers.peer import DIM, DROPOUT, ENDLESS, FFN, HEADS, LAYERS, LR, SMOOTHING, TOKENS, WARMUP, Corpus, Peer

LINE = re.compile(r"Step +\d+/ *\d+; .* bsz: +\d+/ *(\d+)/")


class Eole(Peer):
    name = "eole"
    precisions = ("fp32", "bf16")
    installs = (("torch", "eole==0.6.4", "aiohttp"),)  # aiohttp: imported, but not declared

    def command(self, python: Path, corpus: Corpus, directory: Path, precision: str) -> list[str]:
        words = directory / "pieces.txt"
        words.write_text("".join(f"{piece}\n" for piece in corpus.pieces), encoding="utf-8")
        source, target = (str(corpus.file("train", lang)) for lang in (corpus.source, corpus.target))
        training = {
            "num_workers": 0,  # the cores are busy already
            "world_size": 1,
            "gpu_ranks": [],
            "model_path": str(directory / "run"),
            "compute_dtype": precision,
            "bucket_size": 65536,
            "batch_type": "tokens",
            "batch_size": TOKENS,
            "normalization": "tokens",
            "optim": "adam",
            "adam_beta2": 0.98,
            "decay_method": "noam",
            "learning_rate": LR * (DIM * WARMUP) ** 0.5,  # noam's factor: the peak is LR
            "warmup_steps": WARMUP,
            "label_smoothing": SMOOTHING,
            "dropout": [DROPOUT],
            "attention_dropout": [0.0],
            "param_init_method": "xavier_uniform",
            "log_attention_entropy": False,
            "train_steps": ENDLESS,
            "save_checkpoint_steps": ENDLESS,
            "valid_steps": ENDLESS,
        }
        model = {
            "architecture": "transformer",
            "layers": LAYERS,
            "heads": HEADS,
            "hidden_size": DIM,
            "transformer_ff": FFN,
            "share_embeddings": True,
            "share_decoder_embeddings": True,
            "embeddings": {"word_vec_size": DIM, "position_encoding_type": "SinusoidalInterleaved"},
        }
        vocabulary = {"src_vocab": str(words), "share_vocab": True, "report_every": 1, "overwrite": True}
        data = {"data": {"corpus": {"path_src": source, "path_tgt": target}}, "save_data": str(directory / "run")}
        config = directory / "config.yaml"
        config.write_text(json.dumps({**vocabulary, **data, "training": training, "model": model}, indent=1))
        return [str(python.with_name("eole")), "train", "--config", str(config)]

    def updated(self, line: str) -> int | None:
        match = LINE.search(line)
        return int(match[1]) if match else None

"""fairseq 0.12.3 as fairseq-fixed has it, built against the torch of its environment."""

import json
from pathlib import Path

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
    call,
)

NEEDS = ("cffi", "cython", "hydra-core==1.3.2", "omegaconf==2.3.0", "regex", "sacrebleu", "tqdm", "bitarray")
BUILT_BY = ("setuptools<81", "wheel", "numpy<2", "scikit-learn", "packaging")


class Fairseq(Peer):
    name = "fairseq"
    precisions = ("fp32", "bf16")
    installs = (
        ("torch", *NEEDS, *BUILT_BY),
        ("--no-build-isolation", "--no-deps", "fairseq-fixed==0.12.3.1"),  # the torch above, and no torchaudio
    )

    def prepare(self, python: Path, corpus: Corpus, directory: Path) -> None:
        text = ["-s", corpus.source, "-t", corpus.target, "--trainpref", str(corpus.directory / "train")]
        text += ["--validpref", str(corpus.directory / "valid"), "--joined-dictionary"]
        command = [str(python), "-m", "fairseq_cli.preprocess", *text, "--destdir", str(directory / "binarised")]
        call(command, "fairseq-preprocess")

    def command(self, python: Path, corpus: Corpus, directory: Path, precision: str) -> list[str]:
        sizes = [
            option
            for side in ("encoder", "decoder")
            for name, value in (
                ("layers", LAYERS),
                ("embed-dim", DIM),
                ("ffn-embed-dim", FFN),
                ("attention-heads", HEADS),
            )
            for option in (f"--{side}-{name}", str(value))
        ]
        work = ["--share-all-embeddings", "--dropout", str(DROPOUT), "--max-tokens", str(TOKENS), "--lr", str(LR)]
        work += ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", str(SMOOTHING)]
        work += ["--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr-scheduler", "inverse_sqrt"]
        work += ["--warmup-updates", str(WARMUP), "--max-update", str(ENDLESS), "--cpu", "--num-workers", "0"]
        work += ["--bf16"] if precision == "bf16" else []
        told = ["--log-format", "json", "--log-interval", "1", "--no-save", "--disable-validation"]
        task = ["--task", "translation", "--arch", "transformer", "-s", corpus.source, "-t", corpus.target]
        train = [str(python), "-m", "fairseq_cli.train", str(directory / "binarised")]
        return [*train, *task, *sizes, *work, *told]

    def updated(self, line: str) -> int | None:
        if '"num_updates"' not in line:
            return None
        return round(float(json.loads(line[line.index("{") :])["wpb"]))

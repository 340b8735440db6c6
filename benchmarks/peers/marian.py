"""Marian, as the wheel pymarian has it. It has no bf16, and its fp16 is for GPUs."""

import os
import re
from pathlib import Path

from benchmarks.peers.peer import DIM, DROPOUT, FFN, HEADS, LAYERS, LR, SMOOTHING, TOKENS, WARMUP, Corpus, Peer

LINE = re.compile(r"Ep\. \d+ : Up\. \d+ : .* \* ([\d,]+) @ ")


class Marian(Peer):
    name = "marian"
    installs = (("pymarian==1.12.42",),)

    def prepare(self, python: Path, corpus: Corpus, directory: Path) -> None:
        words = ["</s>", "<unk>", *corpus.pieces]
        lines = (f"'{word.replace(chr(39), chr(39) * 2)}': {number}\n" for number, word in enumerate(words))
        (directory / "pieces.yml").write_text("".join(lines), encoding="utf-8")

    def command(self, python: Path, corpus: Corpus, directory: Path, precision: str) -> list[str]:
        text = ["--train-sets", *(str(corpus.file("train", lang)) for lang in (corpus.source, corpus.target))]
        text += ["--vocabs", *[str(directory / "pieces.yml")] * 2, "--tempdir", str(directory), "--shuffle-in-ram"]
        sizes = ["--type", "transformer", "--enc-depth", str(LAYERS), "--dec-depth", str(LAYERS)]
        sizes += ["--dim-emb", str(DIM), "--transformer-dim-ffn", str(FFN), "--transformer-heads", str(HEADS)]
        sizes += ["--transformer-ffn-activation", "relu", "--tied-embeddings-all"]
        work = ["--transformer-dropout", str(DROPOUT), "--label-smoothing", str(SMOOTHING), "--learn-rate", str(LR)]
        work += ["--lr-warmup", str(WARMUP), "--optimizer-params", "0.9", "0.98", "1e-09", "--max-length", "250"]
        cores = str(len(os.sched_getaffinity(0)))
        work += ["--cpu-threads", cores, "--sync-sgd", "--mini-batch-words", str(TOKENS), "--maxi-batch", "1000"]
        rest = ["--disp-freq", "1u", "--data-threads", "1", "--seed", "1", "--overwrite", "--no-reload"]
        model = ["--model", str(directory / "model.npz")]
        return [str(python), "-m", "pymarian", "train", *text, *sizes, *work, *model, *rest]

    def updated(self, line: str) -> int | None:
        match = LINE.search(line)
        return int(match[1].replace(",", "")) if match else None

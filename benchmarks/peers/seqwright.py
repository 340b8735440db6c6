"""Ours, by `app.train` itself."""

import re
import sys
from pathlib import Path

from benchmarks.peers.peer import DIM, DROPOUT, ENDLESS, FFN, HEADS, LAYERS, LR, SMOOTHING, TOKENS, WARMUP, Corpus, Peer

LINE = re.compile(r" update=\d+.* wps=([\d.e+]+) .*ups=([\d.e+]+) ")


class Seqwright(Peer):
    name = "seqwright"
    precisions = ("fp32", "bf16")

    def command(self, python: Path, corpus: Corpus, directory: Path, precision: str) -> list[str]:
        sizes = [
            f"model.{side}_{name}={value}"
            for side in ("encoder", "decoder")
            for name, value in (
                ("layers", LAYERS),
                ("embed_dim", DIM),
                ("ffn_embed_dim", FFN),
                ("attention_heads", HEADS),
            )
        ]
        work = ["model.share_all_embeddings=true", f"model.dropout={DROPOUT}", f"criterion.label_smoothing={SMOOTHING}"]
        work += [f"batching.max_tokens={TOKENS}", f"optimizer.lr={LR}", f"lr_scheduler.warmup_updates={WARMUP}"]
        text = ["tokenizer=pretokenized", "task.joined_dictionary=true", f"task.data={corpus.directory}"]
        text += [f"task.source_lang={corpus.source}", f"task.target_lang={corpus.target}"]
        places = [f"run_dir={directory / 'run'}", f"cache_dir={directory / 'cache'}", f"precision={precision}"]
        length = [f"trainer.max_update={ENDLESS}", "trainer.log_interval=1", "trainer.validate_interval=1000000"]
        return [sys.executable, "-m", "app.train", *text, *sizes, *work, *places, *length]

    def updated(self, line: str) -> int | None:
        match = LINE.search(line)
        return round(float(match[1]) / float(match[2])) if match else None

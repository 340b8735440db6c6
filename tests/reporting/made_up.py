"""Run directories with made-up metrics."""

import json
import math
import random
from pathlib import Path

import yaml

LOSS_OF = {"1e-4": 3.2, "3e-4": 2.6, "1e-3": 2.9}


def write_run(directory: Path, lr: str, seed: int, updates: int = 1000, outcome: str | None = "finished") -> Path:
    """One run of a sweep over lr and seed, with a loss that falls from 9 to about `LOSS_OF[lr]`."""
    run_dir = directory / f"optimizer.lr={lr},seed={seed}"
    run_dir.mkdir(parents=True)
    config = {
        "seed": seed,
        "optimizer": {"_target_": "app.optimizers.adam.Adam", "lr": float(lr)},
        "batching": {"seed": seed, "max_tokens": 4096},
        "checkpoint": {"metric": "loss", "mode": "min"},
        "run_dir": str(run_dir),
    }
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    draw = random.Random(f"{lr} {seed}")
    lines = []
    for update in range(50, updates + 1, 50):
        loss = LOSS_OF[lr] + 6 * math.exp(-update / 250) + draw.gauss(0, 0.05)
        train = {"loss": loss + 0.3, "lr": float(lr), "wps": 5000 + draw.gauss(0, 100), "train_wall": update * 0.4}
        lines.append({"kind": "train", "num_updates": update, "time": 1e9 + update, **train})
        if update % 100 == 0:
            valid = {"loss": loss, "bleu": 40 - 5 * loss}
            lines.append({"kind": "valid", "num_updates": update, "time": 1e9 + update, **valid})
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if outcome is not None:
        (run_dir / "outcome.json").write_text(json.dumps({"state": outcome, "reason": ""}))
    return run_dir


def write_sweep(directory: Path, count: int) -> Path:
    """`count` runs, over three learning rates."""
    for i in range(count):
        write_run(directory, list(LOSS_OF)[i % 3], i // 3)
    return directory

"""`python -m app.evaluate checkpoint=outputs/RUN split=test`: loss and perplexity of a split, as in validation."""

import json
from pathlib import Path
from typing import Any

from app.cli import command
from app.config import EvaluateConfig


def run(cfg: EvaluateConfig, plugins: dict[str, Any]) -> float:
    """Print the metrics and return the loss, in base 2 a token."""
    import torch

    from app.assembly import restore
    from app.interfaces import Criterion
    from app.meters import Meters
    from app.plugins import configure
    from app.runtime.precision import PreciseOptimizer, Precision
    from app.trainer import choose_device

    if cfg.num_threads:
        torch.set_num_threads(cfg.num_threads)
    device = choose_device(cfg.device)
    restored = restore(Path(cfg.checkpoint), device, cfg.data, cfg.max_tokens)
    task = restored.task
    task.prepare(Path(cfg.cache_dir))
    make_criterion = configure(restored.cfg.criterion, Criterion, "criterion", check=False)
    criterion = make_criterion(task).to(device).train(False)
    if any(True for _ in criterion.parameters()):
        criterion.load_state_dict(restored.checkpoint.state()["criterion"])
    precision = configure(restored.cfg.precision, Precision, "precision", check=False)(device)
    optimizer = PreciseOptimizer(torch.optim.SGD(restored.model.parameters()), precision)  # only asked for autocast
    meters = Meters()
    for batch in task.get_batch_iterator(task.dataset(cfg.split)):
        meters.add([task.valid_step(batch.to(device), restored.model, criterion, optimizer)])
    metrics = meters.means() | {"ntokens": meters.sums["ntokens"], "nsentences": meters.sums["nsentences"]}
    if cfg.output == "json":
        print(json.dumps({"split": cfg.split, **metrics}))
    else:
        print(f"{cfg.split} | " + " | ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
    return metrics["loss"]


main = command("evaluate", run)

if __name__ == "__main__":
    main()

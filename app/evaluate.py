"""`python -m app.evaluate checkpoint=outputs/RUN split=test`: loss and perplexity of a split, as in validation."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli import command
from app.errors import ConfigError
from app.lines import opened_output
from app.roots import EvaluateConfig

if TYPE_CHECKING:  # torch is imported when there is something to do
    from app.data.batch import Batch
    from app.interfaces import Model, Task


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
    if cfg.output_file is not None and not task.generates:
        raise ConfigError([f"output_file={cfg.output_file}: task {type(task).__name__} has no targets piece by piece"])
    task.prepare(Path(cfg.cache_dir))
    make_criterion = configure(restored.cfg.criterion, Criterion, "criterion", check=False)
    criterion = make_criterion(task).to(device).train(False)
    if any(True for _ in criterion.parameters()):
        criterion.load_state_dict(restored.checkpoint.state()["criterion"])
    precision = configure(restored.cfg.precision, Precision, "precision", check=False)(device)
    optimizer = PreciseOptimizer(torch.optim.SGD(restored.model.parameters()), precision)  # only asked for autocast
    meters = Meters()
    with opened_output(cfg.output_file) if cfg.output_file is not None else nullcontext() as out:
        for batch in task.get_batch_iterator(task.dataset(cfg.split)):
            meters.add([task.valid_step(batch.to(device), restored.model, criterion, optimizer)])
            if out is not None:
                out.writelines(pieces_of(batch.to(device), restored.model, task))
    metrics = meters.means() | {"ntokens": meters.sums["ntokens"], "nsentences": meters.sums["nsentences"]}
    if cfg.output == "json":
        print(json.dumps({"split": cfg.split, **metrics}))
    else:
        print(f"{cfg.split} | " + " | ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
    return metrics["loss"]


def pieces_of(batch: "Batch", model: "Model", task: "Task") -> Iterator[str]:
    """Of every sample its number in the split, the pieces of its target with eos, and their log-probabilities."""
    import torch

    with torch.inference_mode():
        log_probs = model.project(model(batch)).float().log_softmax(dim=-1)
        scores = log_probs.gather(2, batch.target.unsqueeze(2)).squeeze(2)
    vocabulary = task.target_vocabulary
    for number, target, row in zip(batch.ids.tolist(), batch.target.cpu(), scores.cpu()):
        real = target != vocabulary.pad
        pieces = [vocabulary.pieces[token] for token in target[real].tolist()]
        values = {"id": number, "pieces": pieces, "log_probs": row[real].tolist()}
        yield json.dumps(values, ensure_ascii=False) + "\n"


main = command("evaluate", run)

if __name__ == "__main__":
    main()

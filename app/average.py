"""`python -m app.average run=outputs/RUN last=5 output=outputs/AVERAGED`: the mean of several checkpoints' weights."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli import command
from app.errors import CheckpointError, StorageError
from app.roots import AverageConfig

if TYPE_CHECKING:  # torch is imported when there is something to do
    from torch import Tensor

    from app.runtime.checkpoint import Checkpoint

log = logging.getLogger("average")


def run(cfg: AverageConfig, plugins: dict[str, Any]) -> None:
    """Write a run directory that every command reads like a trained one; training does not go on from it."""
    from app.assembly import ASSETS, config_of
    from app.run_config import CONFIG, stored_run
    from app.runtime.checkpoint import Checkpoints
    from app.user_packages import FILE_NAME as PACKAGES_FILE

    home, output = Path(cfg.run), Path(cfg.output)
    copied = [home / CONFIG, home / PACKAGES_FILE, home / ASSETS, *(home / ASSETS).rglob("*")]
    if (link := next((path for path in copied if path.is_symlink()), None)) is not None:
        raise CheckpointError(f"{link}: is a link; put the file itself there")
    settings = config_of(stored_run(home), home).checkpoint
    chosen = choose(cfg, Checkpoints(settings, home))
    average = mean([checkpoint.tensors("model.safetensors") for checkpoint in chosen], chosen)
    try:
        output.mkdir(parents=True, exist_ok=True)
        shutil.copytree(home / ASSETS, output / ASSETS)
        for name in filter(lambda name: (home / name).is_file(), (CONFIG, PACKAGES_FILE)):
            shutil.copy2(home / name, output / name)
    except OSError as error:
        raise StorageError(f"{output}: {error.strerror or error}; free space there or give another output") from None
    num_updates = max(checkpoint.num_updates for checkpoint in chosen)
    written = Checkpoints(settings, output).save(num_updates, average, None, {}, {})
    names = ", ".join(checkpoint.path.name for checkpoint in chosen)
    log.info("averaged %s into %s", names, written.path)


def choose(cfg: AverageConfig, checkpoints: Any) -> list["Checkpoint"]:
    """The checkpoints that are asked for. Raises `CheckpointError` where there are fewer."""
    from app.runtime.checkpoint import Checkpoint

    if cfg.inputs:
        return [Checkpoint.open(Path(path)) for path in cfg.inputs]
    found: list[Checkpoint] = checkpoints.best()[: cfg.best] if cfg.best else checkpoints.all()[-cfg.last :]
    wanted = cfg.best or cfg.last
    if len(found) < wanted:
        fault = f"{checkpoints.directory}: holds {len(found)} such checkpoints, not {wanted}"
        raise CheckpointError(f"{fault}; ask for fewer, or train with a larger checkpoint.keep_last or keep_best")
    return found


def mean(weights: list[dict[str, "Tensor"]], chosen: list["Checkpoint"]) -> dict[str, "Tensor"]:
    """Means in fp32, in the dtype of the first. Raises `CheckpointError` for checkpoints of different models."""
    first = weights[0]
    for other, checkpoint in zip(weights, chosen):
        if {name: t.shape for name, t in other.items()} != {name: t.shape for name, t in first.items()}:
            raise CheckpointError(f"{checkpoint.path}: holds another model than {chosen[0].path}")
    sums = {name: sum((other[name].float() for other in weights[1:]), tensor.float()) for name, tensor in first.items()}
    return {name: (total / len(weights)).to(first[name].dtype) for name, total in sums.items()}


main = command("average", run)

if __name__ == "__main__":
    main()

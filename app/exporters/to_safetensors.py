"""Weights in one file, under the names of the state dict, with what a program needs to make sense of them."""

import shutil
from pathlib import Path

from safetensors.torch import save_file

from app.assembly import ASSETS, Restored
from app.run_config import CONFIG


def export(restored: Restored, directory: Path) -> None:
    """Write `model.safetensors` (weights that are shared stand there once a name), `config.yaml` and `task/`."""
    weights = {name: tensor.detach().cpu().clone() for name, tensor in restored.model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    shutil.copy2(restored.run_dir / CONFIG, directory / CONFIG)
    shutil.copytree(restored.run_dir / ASSETS, directory / ASSETS)

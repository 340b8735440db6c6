"""Encoder and decoder as graphs that need none of this program: for torch (`.pt2`), and for ONNX runtimes.

The decoder's graph has no cache: it is given all that was decoded so far, and returns the scores of the next token.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from app.assembly import Restored
from app.errors import ConfigError
from app.interfaces import EncoderOut, LanguageModel, Model


class EncoderGraph(nn.Module):
    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, src_tokens: Tensor, src_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S], [B] -> states [B, S, D] and keep [B, S]."""
        out = self.model.encode(src_tokens, src_lengths)
        return out.states, out.keep


class DecoderGraph(nn.Module):
    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, prev_output_tokens: Tensor, states: Tensor, keep: Tensor) -> Tensor:
        """[B, T], [B, S, D], [B, S] -> scores of the token after the last [B, V]."""
        return self.model.project(self.model.decode(prev_output_tokens, EncoderOut(states, keep))[:, -1])


def graphs(restored: Restored) -> dict[str, ExportedProgram]:
    """`encoder` and `decoder`, for any number of sentences and positions. Raises `ConfigError` for other models."""
    model = restored.model
    tokens = torch.full((3, 7), restored.task.source_vocabulary.unk)
    with torch.inference_mode():
        out = model.encode(tokens, torch.full((3,), 7))
    if isinstance(model, LanguageModel) or out.more:
        raise ConfigError([f"format: {type(model).__name__} has more than states between encoder and decoder"])
    sizes = [Dim("batch", min=1), Dim("source", max=model.max_positions[0]), Dim("target", max=model.max_positions[1])]
    batch, source, target = sizes
    rows: dict[int, Any] = {0: batch, 1: source}
    previous = torch.full((3, 5), restored.task.target_vocabulary.unk)
    encoder = torch.export.export(
        EncoderGraph(model), (tokens, torch.full((3,), 7)), dynamic_shapes=(rows, {0: batch}), strict=False
    )
    decoder = torch.export.export(
        DecoderGraph(model),
        (previous, out.states.clone(), out.keep.clone()),
        dynamic_shapes=({0: batch, 1: target}, rows, rows),
        strict=False,
    )
    return {"encoder": encoder, "decoder": decoder}


def export_torch(restored: Restored, directory: Path) -> None:
    """Write `encoder.pt2` and `decoder.pt2`, which `torch.export.load` reads."""
    for name, graph in graphs(restored).items():
        torch.export.save(graph, directory / f"{name}.pt2")


def export_onnx(restored: Restored, directory: Path) -> None:
    """Write `encoder.onnx` and `decoder.onnx`."""
    try:
        import onnxscript  # noqa: F401  torch needs it to write ONNX
    except ModuleNotFoundError:
        raise ConfigError(["format=onnx: needs packages; pip install 'seqwright[onnx]'"]) from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that no model here needs
    names: dict[str, tuple[list[str], list[str]]] = {
        "encoder": (["src_tokens", "src_lengths"], ["states", "keep"]),
        "decoder": (["prev_output_tokens", "states", "keep"], ["scores"]),
    }
    write: Callable[..., Any] = torch.onnx.export
    for name, graph in graphs(restored).items():
        inputs, outputs = names[name]
        path = directory / f"{name}.onnx"
        write(
            graph, (), path, dynamo=True, input_names=inputs, output_names=outputs, external_data=False, verbose=False
        )

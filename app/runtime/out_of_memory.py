"""What happens when a batch does not fit into memory: found before training, or split in two and tried once more."""

import gc
import logging
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

import torch
from torch import Tensor, nn

from app.errors import OutOfMemory
from app.runtime.gradients import GradientBuckets
from app.runtime.placement import GradientSums

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch", bound=Sized)  # len: its sentences
Result = TypeVar("Result")
ON_CPU = ("can't allocate memory", "not enough memory")  # what torch's CPU allocator says


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in ON_CPU)


def advice(batch: Sized) -> str:
    mend = "lower batching.max_tokens, and raise trainer.update_freq to keep the size of an update"
    return f"a batch of {len(batch)} sentences does not fit into memory; {mend}"


def rehearse(step: Callable[[Batch], object], batch: Batch, model: nn.Module, zero_grad: Callable[[], None]) -> None:
    """Run a step that leaves no trace: gradients are dropped, buffers are put back. Raises OutOfMemory with advice."""
    before = [buffer.clone() for buffer in model.buffers()]
    fits = True
    try:
        step(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    zero_grad()
    for buffer, value in zip(model.buffers(), before):
        buffer.copy_(value)
    if not fits:
        raise OutOfMemory(f"before the first update: {advice(batch)}")


class HalvingRetry:
    """Runs steps; one that does not fit into memory is run as its two halves, once.

    Not where the model itself is split over ranks, which compute every layer together.

    Losses are sums, so that two halves are the whole. Gradients that the failed step completed are kept, and left out
    of the second try; the others never were added to. No rank needs to know of another's trouble: what is sent
    between them stays the same, in the same order.
    """

    def __init__(self, parameters: Sequence[Tensor], gradients: GradientSums):
        self.parameters, self.gradients = parameters, gradients

    def run(
        self, step: Callable[[Batch], Result], batch: Batch, halves: Callable[[Batch], list[Batch]]
    ) -> list[Result]:
        """What `step` returns for the batch, or for each half of it. Raises OutOfMemory where a half does not fit."""
        before = [_mark(parameter) for parameter in self.parameters]
        try:
            return [step(batch)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        return self._again(step, batch, halves, before)  # outside of `except`, which holds the failed step's tensors

    def _again(
        self,
        step: Callable[[Batch], Result],
        batch: Batch,
        halves: Callable[[Batch], list[Batch]],
        before: list[tuple[int, int] | None],
    ) -> list[Result]:
        if len(batch) < 2 or not isinstance(self.gradients, GradientBuckets):
            raise OutOfMemory(advice(batch))
        logger.warning("%s; trying its halves", advice(batch))
        gc.collect()
        torch.cuda.empty_cache()
        complete = {p: p.grad for p, mark in zip(self.parameters, before) if _mark(p) != mark}
        for parameter in complete:
            parameter.grad = None
        try:
            with self.gradients.paused():
                results = [step(half) for half in halves(batch)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(f"a half of what did not fit does not fit either: {advice(batch)}") from None
        for parameter, grad in complete.items():
            parameter.grad = grad
        return results


def _mark(parameter: Tensor) -> tuple[int, int] | None:
    """Changes when a gradient is added to."""
    return None if parameter.grad is None else (id(parameter.grad), parameter.grad._version)

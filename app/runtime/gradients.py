"""Gradients of all ranks are added, in buckets, while the backward pass still runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from app.errors import ConfigError


class GradientBuckets:
    """Sums the gradients of `parameters` over ranks (Li et al., 2020, "PyTorch Distributed", sec. 3.2.3).

    A bucket is sent when the last of its gradients is ready, and buckets are sent in one order on all ranks. Unlike
    torch's DDP this asks nothing of the forward pass: a step may call any module, in any order, use any part of the
    model, and compute a part of its gradients again (`out_of_memory.py`). A parameter that no rank used keeps no
    gradient; one that some used counts as zero on the others.
    """

    def __init__(self, parameters: Sequence[Tensor] = (), bucket_cap_mb: float = 25.0, overlap: bool = True):
        self.overlap = overlap
        self.buckets = cut(parameters, int(bucket_cap_mb * 2**20))
        self.bucket_of = {p: number for number, bucket in enumerate(self.buckets) for p in bucket}
        self.waiting: list[int] = []  # gradients that each bucket waits for; empty: not collecting
        self.sent: list[tuple[Tensor, dist.Work]] = []
        for parameter in self.bucket_of:
            parameter.register_post_accumulate_grad_hook(self._ready)  # type: ignore[no-untyped-call]

    def begin(self, last: bool) -> None:
        """Before the backward pass of a batch; `last`: of the update's last one, so that finished sums may be sent."""
        if last and self.overlap:
            self.waiting = [len(bucket) for bucket in self.buckets]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Gradients that are accumulated inside are not counted as ready."""
        waiting, self.waiting = self.waiting, []
        yield
        self.waiting = waiting

    def finish(self) -> None:
        """After an update's last backward pass: gradients become sums over ranks."""
        while len(self.sent) < len(self.buckets):
            self._send()
        for bucket, (flat, work) in zip(self.buckets, self.sent):
            work.wait()
            *sums, used = torch.split(flat, [*(p.numel() for p in bucket), len(bucket)])
            unused = {i for i, p in enumerate(bucket) if p.grad is None and used[i] == 0}
            for i, parameter in enumerate(bucket):
                parameter.grad = None if i in unused else sums[i].view(parameter.shape)
        self.waiting, self.sent = [], []

    def _ready(self, parameter: Tensor) -> None:
        if not self.waiting:
            return
        number = self.bucket_of[parameter]
        if self.waiting[number] == 0:
            fault = "this task computes gradients in several passes over the model"
            raise ConfigError([f"distributed.overlap=true: {fault}; set distributed.overlap=false"])
        self.waiting[number] -= 1
        while len(self.sent) < len(self.buckets) and self.waiting[len(self.sent)] == 0:
            self._send()

    def _send(self) -> None:
        """The next bucket: its gradients, and for each whether there is one."""
        bucket = self.buckets[len(self.sent)]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        used = parts[0].new_tensor([p.grad is not None for p in bucket])
        flat = torch.cat([*(part.reshape(-1) for part in parts), used])
        work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self.sent.append((flat, work))


def cut(parameters: Sequence[Tensor], most_bytes: int) -> list[list[Tensor]]:
    """Buckets of like numbers, from the last parameter, whose gradient is ready first, to the first."""
    buckets: list[list[Tensor]] = []
    size = 0
    for parameter in reversed(parameters):
        nbytes = parameter.numel() * parameter.element_size()
        if not buckets or size + nbytes > most_bytes or buckets[-1][0].dtype != parameter.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += nbytes
    return buckets

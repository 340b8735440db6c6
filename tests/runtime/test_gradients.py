"""Sums over workers, seen from the one worker of a process group of one."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from app.errors import ConfigError
from app.runtime.gradients import GradientBuckets, cut


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def weights(*sizes: int) -> list[Tensor]:
    return [nn.Parameter(torch.ones(size)) for size in sizes]


def test_buckets_start_at_the_end_and_are_not_mixed() -> None:
    parameters = [*weights(4, 4, 4, 9), nn.Parameter(torch.ones(1, dtype=torch.float64))]
    sizes = [[(p.numel(), p.dtype) for p in bucket] for bucket in cut(parameters, 32)]
    single, double = torch.float32, torch.float64
    assert sizes == [[(1, double)], [(9, single)], [(4, single), (4, single)], [(4, single)]]


def test_they_are_sent_while_gradients_are_computed_and_what_is_unused_stays_so() -> None:
    parameters = weights(3, 3, 3)
    buckets = GradientBuckets(parameters, 12 / 2**20)
    sent: list[int] = []
    parameters[0].register_hook(lambda grad: sent.append(len(buckets.sent)))
    for last in (False, True):
        buckets.begin(last)
        (parameters[0] * 2 * (parameters[2] * 3)).sum().backward()
        assert len(buckets.sent) == last  # the unused one holds up those behind it
    buckets.finish()
    assert parameters[1].grad is None
    assert [p.grad.tolist() for p in parameters[::2] if p.grad is not None] == [[12.0] * 3, [12.0] * 3]
    assert buckets.sent == []


def test_without_overlap_all_is_sent_at_the_end() -> None:
    (parameter,) = weights(2)
    buckets = GradientBuckets([parameter], 1.0, overlap=False)
    buckets.begin(last=True)
    for _ in range(2):
        parameter.sum().backward()
    assert buckets.sent == []
    buckets.finish()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [2.0, 2.0]


def test_a_second_pass_after_sending_is_refused() -> None:
    (parameter,) = weights(2)
    buckets = GradientBuckets([parameter], 1.0)
    buckets.begin(last=True)
    parameter.sum().backward()
    with pytest.raises(ConfigError, match="set distributed.overlap=false"):
        parameter.sum().backward()


def test_a_pause_does_not_count() -> None:
    (parameter,) = weights(2)
    buckets = GradientBuckets([parameter], 1.0)
    buckets.begin(last=True)
    with buckets.paused():
        parameter.sum().backward()
    assert buckets.sent == []

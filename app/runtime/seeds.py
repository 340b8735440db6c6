"""Random numbers that depend on where a run stands and on nothing before."""

import numpy as np
import torch


def seed_for(seed: int, *place: int) -> int:
    """A 63-bit seed for one place of a run, such as (update, batch). Pure; near places give unrelated seeds."""
    first, second = np.random.SeedSequence((seed, *place)).generate_state(2, dtype=np.uint32)
    return (int(first) << 31) ^ int(second)


def set_seed(seed: int, *place: int) -> None:
    """Seed torch on every device. Done before every batch, a resumed run draws what an unbroken one draws."""
    torch.manual_seed(seed_for(seed, *place))

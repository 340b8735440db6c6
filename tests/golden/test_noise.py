"""fairseq's denoising data set, draw by draw."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from app.data.noise import Draws, Noise, NoiseConfig
from tests.golden.cases import claimed


@pytest.mark.parametrize("case", claimed("data", "denoising*"))
def test_noise(case: Any) -> None:
    """fairseq masks its own sentences in place: each result's targets are what it started from."""
    spec = case.spec
    for result in spec["results"]:
        given = spec["base_options"] | result["options"]
        cfg = NoiseConfig(**{f.name: given[f.name] for f in fields(NoiseConfig)})
        assert not list(cfg.check())
        begins = None if cfg.mask_length == "subword" else np.array(spec["word_begin_mask"], dtype=bool)
        noise = Noise(cfg, spec["mask_idx"], spec["vocab"], begins)
        for index, (source, target) in enumerate(zip(result["sources"], result["targets"], strict=True)):
            seed = int(hash((spec["seed"], spec["epoch"], index)) % 1e6)
            draws = Draws(torch.Generator().manual_seed(100 + index), np.random.RandomState(seed))
            tokens = torch.tensor(target)
            assert noise(tokens, tokens == spec["full_stop_index"], draws).tolist() == source, result["options"]
            assert tokens.tolist() == target

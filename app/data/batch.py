"""A batch of sentence pairs, as the model takes it."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """Rows are sentence pairs; padding stands at the end of a row."""

    ids: Tensor  # [B] numbers of the samples in their dataset
    src_tokens: Tensor  # [B, S], each row ends with eos
    src_lengths: Tensor  # [B], eos counted
    prev_output_tokens: Tensor  # [B, T], the target moved right, eos in front
    target: Tensor  # [B, T], each row ends with eos
    num_tokens: int  # target tokens without padding

    def __len__(self) -> int:
        return self.ids.size(0)

    def to(self, device: torch.device) -> "Batch":
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self) if f.type is Tensor}
        return replace(self, **moved)

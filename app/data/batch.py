"""A batch, as the model takes it."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """Rows are sentence pairs, or blocks of one text; padding stands at the end of a row."""

    ids: Tensor  # [B] numbers of the samples in their dataset
    src_tokens: Tensor  # [B, S], each row ends with eos; in a language model, prev_output_tokens
    src_lengths: Tensor  # [B], eos counted
    prev_output_tokens: Tensor  # [B, T], the target moved right, eos in front; what a decoder sees
    target: Tensor  # [B, T], what is to be predicted at each position
    num_tokens: int  # target tokens without padding

    def __len__(self) -> int:
        return self.ids.size(0)

    def to(self, device: torch.device) -> "Batch":
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self) if f.type is Tensor}
        return replace(self, **moved)


@dataclass
class AlignedBatch(Batch):
    """A batch of pairs whose words are aligned (Garg et al., 2019)."""

    alignments: Tensor  # [N, 2]: a source position, and the target position for it, counted through the rows of [B, T]
    align_weights: Tensor  # [N] one over the number of alignments of that target position

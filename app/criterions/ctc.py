"""Connectionist temporal classification: a sequence from more frames than it has tokens, without alignments."""

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import token_logs


@dataclass
class CTCConfig:
    zero_infinity: bool  # leave out targets that are too long for their frames, whose loss is infinite
    sentence_avg: bool  # divide gradients by sentences rather than by target tokens


class Frames(Protocol):
    """A model that scores every token at every frame."""

    def frame_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores [B, S, V] and how many frames each row has [B]."""


class CTC(Criterion):
    """Graves et al. (2006), by torch. The blank is bos, as in fairseq; eos and padding are taken from the targets."""

    needs = "frame_scores"

    def __init__(self, cfg: CTCConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.vocabulary = task.target_vocabulary

    def forward(self, model: Model, batch: Batch) -> Loss:
        scores, frames = cast(Frames, model).frame_scores(batch)
        lprobs = scores.log_softmax(dim=-1, dtype=torch.float32).transpose(0, 1)  # [S, B, V]
        kept = batch.target.ne(self.vocabulary.pad) & batch.target.ne(self.vocabulary.eos)
        lengths = kept.sum(dim=1)
        target = batch.target[kept]
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN's refuses some lengths
            loss = F.ctc_loss(
                lprobs,
                target,
                frames,
                lengths,
                blank=self.vocabulary.bos,
                reduction="sum",
                zero_infinity=self.cfg.zero_infinity,
            )
        num_tokens, num_sentences = target.numel(), batch.target.size(0)
        logs = token_logs(loss, loss, num_tokens, num_sentences)
        return Loss(loss, num_sentences if self.cfg.sentence_avg else num_tokens, logs)

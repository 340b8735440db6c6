"""The non-autoregressive Transformer that learns to refine its own output (Lee et al., 2018)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.interfaces import Draft, EncoderOut, Prediction, Refinement, Task
from app.models.drafts import LengthTransformer, LengthTransformerConfig
from app.ranges import between, positive

CORRUPTION = 1 / 3  # share of the pieces that are corrupted, in equal parts by each of three ways
FIRST_PIECE = Vocabulary.unk + 1


@dataclass
class IterativeNonautoregressiveTransformerConfig(LengthTransformerConfig):
    train_step: int  # refinements that are learnt at once
    dae_ratio: float  # share of sentences that are refined from a corrupted target rather than from the last output
    stochastic_approx: bool  # the last output is drawn at random rather than the likeliest

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from positive(self, "train_step")
        yield from between(self, 0, 1, "dae_ratio")


class IterativeNonautoregressiveTransformer(LengthTransformer):
    """Learns from blanks, then from its own output or a corrupted target (sec. 3.2); decodes in the same steps."""

    def __init__(self, cfg: IterativeNonautoregressiveTransformerConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.words = len(task.target_vocabulary)

    def predictions(self, batch: Batch) -> dict[str, Prediction]:
        encoder_out = self.encode(batch.src_tokens, batch.src_lengths)
        real, tokens = batch.target.ne(Vocabulary.pad), batch.prev_output_tokens
        each = []
        for step in range(self.cfg.train_step):
            features = self.features(tokens, encoder_out, step)
            each.append(features)
            if step + 1 < self.cfg.train_step:
                tokens = self._next_input(features.detach(), batch.target, real)
        steps = torch.cat(each), batch.target.repeat(len(each), 1), real.repeat(len(each), 1)
        return {"word_ins": self.word_prediction(*steps), "length": self.length_prediction(encoder_out, batch.target)}

    def _next_input(self, features: Tensor, target: Tensor, real: Tensor) -> Tensor:
        """What the next step refines, [B, T]; validation draws nothing, so that its losses can be compared."""
        scores = self.project(features)
        if self.cfg.stochastic_approx and self.training:
            scores = scores - torch.empty_like(scores).exponential_().log()  # the Gumbel-max trick
        tokens = scores.argmax(-1).masked_fill(~real, Vocabulary.pad)
        if not self.training:
            return tokens
        corrupt = torch.rand(len(target), 1, device=target.device) < self.cfg.dae_ratio
        return torch.where(corrupt, corrupted(target, self.words), tokens)

    def refine(self, draft: Draft, encoder_out: EncoderOut, refinement: Refinement) -> Draft:
        return self.rewritten(draft, encoder_out, refinement.step)


def corrupted(target: Tensor, words: int) -> Tensor:
    """[B, T] with pieces replaced by any word, or by their left neighbour, or swapped with their right one.

    bos and eos stay where they are. fairseq does this from left to right, and takes the id of <unk> for that of eos.
    """
    inner = target.ge(Vocabulary.unk)
    draws = torch.rand(target.shape, device=target.device).masked_fill(~inner, 1)
    way = (draws / (CORRUPTION / 3)).long()  # 0, 1, 2: one of the three; more: none
    random = torch.randint(FIRST_PIECE, words, target.shape, device=target.device)
    before, after = target.roll(1, 1), target.roll(-1, 1)
    swaps = (way == 2) & after.ge(Vocabulary.unk) & inner
    swaps &= ~swaps.roll(1, 1)  # a piece is swapped once
    out = torch.where(way == 0, random, target)
    out = torch.where((way == 1) & before.ge(Vocabulary.unk), before, out)
    out = torch.where(swaps, after, out)
    return torch.where(swaps.roll(1, 1), before, out)

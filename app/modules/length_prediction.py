"""How long will the output be? Asked of the mean of the encoder's states, before any of it is there."""

import torch
from torch import Tensor

from app.modules.draft_decoder import DraftDecoder, DraftDecoderConfig, class_vectors
from app.modules.transformer_decoder import Memory

LENGTHS = 256  # classes of lengths, or of differences to the source's length, of which the middle one is 0


class LengthDecoder(DraftDecoder):
    """A decoder that predicts its draft's length, which counts bos and eos (Ghazvininejad et al., 2019, sec. 3.3).

    With `offset` it predicts the difference to the source's length; with `detached` its gradient stops at the encoder.
    """

    def __init__(
        self, cfg: DraftDecoderConfig, embed_tokens: torch.nn.Embedding, words: int, offset: bool, detached: bool
    ):
        super().__init__(cfg, embed_tokens, words)
        self.offset, self.detached, self.longest = offset, detached, cfg.embedding.max_positions
        self.embed_length = class_vectors(LENGTHS, cfg.memory_dim)

    def length_features(self, memory: Memory) -> Tensor:
        """[B, D]: the mean of the states that are not padding."""
        keep = memory.keep.unsqueeze(-1)
        mean = (memory.states * keep).sum(1) / keep.sum(1)
        return mean.detach() if self.detached else mean

    def length_target(self, target: Tensor, memory: Memory) -> Tensor:
        """[B, T] -> the class [B] of each row's length; what is out of range gets the nearest class."""
        lengths = target.ne(self.padding_idx).sum(1) - self._origin(memory)
        return lengths.clamp(0, LENGTHS - 1)

    def predicted_lengths(self, memory: Memory, beam: int) -> Tensor:
        """[B * beam]: the likeliest length of each sentence and, as far as there is room, those around it."""
        scores = self.length_features(memory) @ self.embed_length.weight.t()
        lengths = scores.argmax(-1) + self._origin(memory)
        around = torch.arange(beam, device=lengths.device) - beam // 2
        lengths = lengths.clamp(min=2)
        return (lengths[:, None] + around).flatten().clamp(2, self.longest)

    def _origin(self, memory: Memory) -> Tensor | int:
        """The length that class 0 means."""
        return memory.keep.sum(1) - LENGTHS // 2 if self.offset else 0


def blank(lengths: Tensor, bos: int, pad: int, eos: int, unk: int) -> Tensor:
    """[B] -> [B, T]: bos, unk and eos, as many as the lengths say."""
    place = torch.arange(int(lengths.max()), device=lengths.device).expand(lengths.size(0), -1)
    tokens = torch.full_like(place, unk).masked_fill(place >= lengths[:, None], pad)
    tokens[:, 0] = bos
    return tokens.scatter(1, lengths[:, None] - 1, eos)


def copied(embedded: Tensor, keep: Tensor, tokens: Tensor, pad: int) -> Tensor:
    """The source's vectors [B, S, D], spread evenly over the positions of a draft: [B, T, D] (Gu et al., 2018, 3.3).

    The source is padded at its end. fairseq, which pads at the front, copies padding where rows differ in length.
    """
    real = tokens.ne(pad)
    step = (keep.sum(1).float() - 1) / (real.sum(1).float() - 1)
    place = torch.arange(tokens.size(1), device=tokens.device)
    source = (step[:, None] * place).round().long().masked_fill(~real, 0)
    return embedded.gather(1, source.unsqueeze(-1).expand(-1, -1, embedded.size(-1)))

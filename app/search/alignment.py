"""Which source positions an output attended to."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from app.interfaces import EncoderOut, Model
from app.search import Hypothesis


def with_attention(
    models: list[Model], encoder_outs: list[EncoderOut], best: list[list[Hypothesis]], bos: int, pad: int
) -> list[list[Hypothesis]]:
    """The hypotheses with their `attention`, the mean of the models'.

    `encoder_outs` are those of all sentences, `bos` is the decoder's first input. One pass over finished outputs costs
    less than keeping the attention of every candidate.
    """
    hypotheses = [hypothesis for each in best for hypothesis in each]
    device = encoder_outs[0].states.device
    tokens = pad_sequence([h.tokens for h in hypotheses], batch_first=True, padding_value=pad).to(device)  # [H, T]
    inputs = torch.cat([torch.full_like(tokens[:, :1], bos), tokens[:, :-1]], dim=1)
    sentences = torch.tensor([i for i, each in enumerate(best) for _ in each], device=device)
    each_model = [model.cross_attention(inputs, out.select(sentences)) for model, out in zip(models, encoder_outs)]
    known = [attention for attention in each_model if attention is not None]
    if not known:
        return best
    mean = torch.stack(known).mean(dim=0).cpu()  # [H, T, S]
    rows = iter(zip(hypotheses, mean))
    return [[_attended(*next(rows)) for _ in each] for each in best]


def _attended(hypothesis: Hypothesis, attention: Tensor) -> Hypothesis:
    return hypothesis._replace(attention=attention[: hypothesis.tokens.size(0)])

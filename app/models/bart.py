"""BART (Lewis et al., 2020): a Transformer that is taught to undo noise, and may classify what it reads."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.data.batch import Batch
from app.interfaces import Task
from app.models.transformer import Transformer, TransformerConfig
from app.modules.activations import ACTIVATIONS
from app.modules.bert_init import init_bert_params
from app.modules.classification_head import ClassificationHead
from app.ranges import one_of, probability


@dataclass
class BartConfig(TransformerConfig):
    pooler_activation_fn: str  # inside a classification head
    pooler_dropout: float  # inside a classification head

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from one_of(self, "pooler_activation_fn", *ACTIVATIONS)
        yield from probability(self, "pooler_dropout")


class Bart(Transformer):
    """The Transformer with BERT's initialisation, and a classification head for each that the task names."""

    def __init__(self, cfg: BartConfig, task: Task):
        super().__init__(cfg, task)
        self.eos = task.source_vocabulary.eos
        self.apply(init_bert_params)
        for side in (self.encoder, self.decoder):  # again, for the output projection, which shares them, has no padding
            init_bert_params(side.embed_tokens)
        dim = cfg.decoder_output_dim
        self.classification_heads = nn.ModuleDict(
            {
                name: ClassificationHead(dim, dim, num_classes, cfg.pooler_activation_fn, cfg.pooler_dropout)
                for name, num_classes in task.classification_heads.items()
            }
        )

    def classify(self, batch: Batch, head: str) -> Tensor:
        """[B, C]: the head's scores of the features at each sentence's last eos; the decoder reads it again too."""
        tokens = batch.src_tokens
        features = self.decode(tokens, self.encode(tokens, batch.src_lengths))
        last = tokens.eq(self.eos).cumsum(dim=1).argmax(dim=1)  # [B], the first of the largest counts
        scores: Tensor = self.classification_heads[head](features[torch.arange(len(last), device=last.device), last])
        return scores

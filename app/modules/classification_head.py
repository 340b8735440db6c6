"""From a sentence's vector to the scores of its classes."""

from torch import Tensor, nn

from app.modules.activations import ACTIVATIONS
from app.modules.dropout import Dropout


class ClassificationHead(nn.Module):
    """A hidden layer and a projection, with dropout before each; parameters are named as in fairseq's state_dict."""

    def __init__(self, dim: int, inner_dim: int, num_classes: int, activation_fn: str, dropout: float):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.dense = nn.Linear(dim, inner_dim)
        self.activation = ACTIVATIONS[activation_fn]
        self.out_proj = nn.Linear(inner_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        inner = self.activation(self.dense(self.dropout(x)))
        scores: Tensor = self.out_proj(self.dropout(inner))
        return scores

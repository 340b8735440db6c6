"""How BERT's descendants start (Devlin et al., 2019): small normal numbers, whatever a layer's size."""

from torch import nn

STD = 0.02


def init_bert_params(module: nn.Module) -> None:
    """For `model.apply`: weights of linear layers and embeddings N(0, 0.02^2); biases and padding's vector 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=STD)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])

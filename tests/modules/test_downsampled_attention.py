"""Which positions a downsampled head sees."""

import torch

from app.modules.downsampled_attention import DownsampledAttention


def test_head_i_sees_every_nth_position_of_the_past() -> None:
    torch.manual_seed(0)
    attention = DownsampledAttention(8, 8, heads=2, project=True, downsample=True)
    x = torch.randn(1, 6, 8)
    for stride, head in ((1, attention[0]), (2, attention[1])):
        read = x.clone().requires_grad_()
        y, weights = head(x, read, read, past=True)
        assert weights.shape == (1, 6, len(range(0, 6, stride)))
        for place in range(6):
            (grad,) = torch.autograd.grad(y[0, place].sum(), read, retain_graph=True)
            seen = grad[0].abs().sum(-1).nonzero().flatten().tolist()
            assert seen == list(range(0, place, stride))


def test_the_first_position_sees_nothing() -> None:
    torch.manual_seed(0)
    attention = DownsampledAttention(8, 4, heads=2, project=False)
    x = torch.randn(2, 3, 8)
    y, _ = attention(x, x, x, past=True)
    assert y[:, 0].tolist() == attention.attention_module.out_proj.bias.expand(2, -1).tolist()

"""Both ways of computing attention agree, with each other and with the definition."""

import pytest
import torch

from app.modules.attention import KeyValues, MultiheadAttention


def plain(attention: MultiheadAttention, x: torch.Tensor, memory: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """One query, one head at a time."""
    q, k, v = attention.q_proj(x), attention.k_proj(memory), attention.v_proj(memory)
    width = q.size(-1) // attention.heads
    out = torch.zeros_like(q)
    for b in range(x.size(0)):
        for h in range(attention.heads):
            part = slice(h * width, (h + 1) * width)
            for t in range(x.size(1)):
                scores = (k[b, keep[b], part] @ q[b, t, part]) / width**0.5
                out[b, t, part] = scores.softmax(0) @ v[b, keep[b], part]
    return attention.out_proj(out)


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # the second takes the path for dropout and drops nothing
def test_attention_to_memory(dropout: float) -> None:
    torch.manual_seed(1)
    attention = MultiheadAttention(8, 2, dropout, memory_dim=6).train()
    x, memory = torch.randn(3, 4, 8), torch.randn(3, 5, 6)
    keep = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]], dtype=torch.bool)
    ours = attention.over(x, memory, keep[:, None, None])
    torch.testing.assert_close(ours, plain(attention, x, memory, keep))


@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_causal_self_attention_sees_no_future(dropout: float) -> None:
    attention = MultiheadAttention(8, 2, dropout).train()
    x = torch.randn(2, 6, 8)
    whole = attention(x, causal=True)
    for t in range(6):
        torch.testing.assert_close(attention(x[:, : t + 1], causal=True)[:, t], whole[:, t])


def test_hypotheses_of_one_sentence_share_its_memory() -> None:
    attention = MultiheadAttention(8, 2, 0.0).eval()
    x, memory = torch.randn(6, 1, 8), torch.randn(2, 5, 8)  # three hypotheses of each of two sentences
    keep = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=torch.bool)[:, None, None]
    shared = attention.over(x, memory, keep, KeyValues())
    repeated = attention.over(x, memory.repeat_interleave(3, 0), keep.repeat_interleave(3, 0))
    torch.testing.assert_close(shared, repeated)


@pytest.mark.parametrize("length", [5, 40])
def test_what_is_decoded_without_gradients_is_found_by_plain_products(length: int) -> None:
    attention = MultiheadAttention(8, 2, 0.0).eval()
    x, memory = torch.randn(6, 1, 8), torch.randn(2, length, 8)
    keep = torch.arange(length).expand(2, -1)[:, None, None] < torch.tensor([length, length - 2]).view(2, 1, 1, 1)
    with torch.inference_mode():
        ours = attention.over(x, memory, keep, KeyValues())
    torch.testing.assert_close(ours, attention.over(x, memory, keep))


def test_rows_that_stay_are_not_moved() -> None:
    cache, first, new = KeyValues(), torch.randn(9, 2, 3, 4), torch.randn(6, 2, 1, 4)
    rows = torch.tensor([0, 1, 8, 3, 7, 5])
    whole = cache.append(first, -first)[0]
    cache.select(rows)
    keys, values = cache.append(new, -new)
    assert keys.data_ptr() == whole.data_ptr()
    assert torch.equal(keys, torch.cat([first[rows], new], dim=2))
    assert torch.equal(values, -keys)


def test_cache_grows_and_is_reordered() -> None:
    cache, rows = KeyValues(), torch.tensor([2, 0, 0])
    steps = torch.randn(40, 3, 2, 1, 4)
    for i, step in enumerate(steps):
        keys, values = cache.append(step, -step)
        if i == 20:
            cache.select(rows)
    expected = torch.cat([steps[:21, rows], steps[21:]]).squeeze(3).permute(1, 2, 0, 3)
    assert torch.equal(keys, expected)
    assert torch.equal(values, -expected)

"""Multi-head attention, and the keys and values that decoding keeps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.dropout import Dropout
from app.modules.plain_attention import attend, future
from app.modules.positions import rotated

FEW = 16  # queries of a head: where they are no more, plain products are quicker than torch's fused kernel on a CPU
FEW_BF16 = 64  # the same in bf16
BLOCK = 32  # positions by which room grows where all of it is given
MANY = 2**18  # numbers in all keys: where they are less, products in fp32 are quicker, conversions included
VECTOR = 16  # torch's softmax of fewer numbers does not use the CPU's vectors


class KeyValues:
    """Keys and values of one attention. Room grows ahead: most steps copy what is new only.

    In bf16 on the CPU all room is given, zeros at its end, and has to be masked: oneDNN's products of a whole block are
    several times faster than those of a part of each row.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None  # [N, H, room, d]
        self.values: Tensor | None = None
        self.length = 0
        self.steps = 0  # how often something was appended

    @property
    def rows(self) -> int:
        """N, or 0 before anything was appended."""
        return 0 if self.keys is None else self.keys.size(0)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """[N, H, T, d] twice -> everything so far, [N, H, length or room, d] twice."""
        end, whole = self.length + keys.size(2), _whole(keys)
        if self.keys is None or self.values is None or end > self.keys.size(2):
            room = -(-end // BLOCK) * BLOCK if whole else max(16, 2 * end)
            self.keys, self.values = self._grown(self.keys, keys, room), self._grown(self.values, values, room)
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length, self.steps = end, self.steps + 1
        return (self.keys, self.values) if whole else (self.keys[:, :, :end], self.values[:, :, :end])

    def mask(self, given: Tensor | None) -> Tensor | None:
        """`given`, which is for what was appended, as one for what `append` gave."""
        if self.keys is None or not _whole(self.keys) or self.length == self.keys.size(2):
            return given
        free = (0, self.keys.size(2) - self.length)
        given = self.keys.new_zeros(1, 1, 1, self.length, dtype=torch.float32) if given is None else additive(given)
        return F.pad(given, free, value=float("-inf"))

    def _grown(self, old: Tensor | None, like: Tensor, room: int) -> Tensor:
        n, h, _, d = like.shape
        new = _room(like, n, h, room, d)
        if old is not None:
            new[:, :, : self.length] = old[:, :, : self.length]
        return new

    def hold(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep these [N, H, S, d] and return them, in one piece, so that no later product has to copy them."""
        self.keys, self.values, self.length = keys.contiguous(), values.contiguous(), keys.size(2)
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Make row `rows[i]` the new row i. Room stays for the next position. Where most rows stay, few are copied."""
        if self.keys is None or self.values is None:
            return
        places = torch.arange(rows.size(0), device=rows.device)
        moved = (rows != places).nonzero().squeeze(1)
        if rows.size(0) <= self.rows and 2 * moved.size(0) < rows.size(0):
            self.keys, self.values = (self._moved(x, rows[moved], moved) for x in (self.keys, self.values))
            self.keys, self.values = self.keys[: rows.size(0)], self.values[: rows.size(0)]
        else:
            self.keys, self.values = self._selected(self.keys, rows), self._selected(self.values, rows)

    def _moved(self, x: Tensor, source: Tensor, to: Tensor) -> Tensor:
        now = x.detach()[:, :, : self.length]  # nothing is learnt from what is kept
        now[to] = now[source]
        return x

    def _selected(self, old: Tensor, rows: Tensor) -> Tensor:
        new = _room(old, rows.size(0), *old.shape[1:])
        now = old[:, :, : self.length].detach()  # `out` knows no gradients
        torch.index_select(now, 0, rows, out=new[:, :, : self.length])
        return new


def _whole(x: Tensor) -> bool:
    """Whether keys or values like x are given with all their room."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu"


def _room(like: Tensor, *shape: int) -> Tensor:
    return like.new_zeros(shape) if _whole(like) else like.new_empty(shape)


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al., 2017, sec. 3.2.2).

    With fewer `kv_heads`, groups of query heads share keys and values (Ainslie et al., 2023). `rotary`: self-attention
    knows positions by turning queries and keys.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float,
        memory_dim: int | None = None,
        kv_heads: int | None = None,
        rotary: bool = False,
    ):
        super().__init__()
        self.of_itself = memory_dim is None
        memory_dim = dim if memory_dim is None else memory_dim
        self.heads, self.head_dim, self.rotary = heads, dim // heads, rotary
        self.sharing = heads // (kv_heads or heads)  # query heads for each head of keys and values
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(memory_dim, dim // self.sharing)
        self.v_proj = nn.Linear(memory_dim, dim // self.sharing)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)
        self.together: nn.Module | None = None  # queries, keys and values in one, once the weights are packed
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier; with gain 1/sqrt(2) where queries, keys and values have one width, as if they were one matrix."""
        gain = 2**-0.5 if self.k_proj.in_features == self.q_proj.in_features else 1.0
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=gain)
            nn.init.zeros_(projection.bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KeyValues | None = None,
        context: Tensor | None = None,
        head_scale: Tensor | None = None,
    ) -> Tensor:
        """Self-attention of x [B, T, D], or its attention to `context` [B, C, D], which then holds x as well.

        `mask` (True: may be seen; or what is added to scores) broadcasts to [B, H, T, C]. With a cache, `context` is
        what is new since last time.
        `head_scale` [H] multiplies the heads' outputs before they are joined.
        """
        if context is None:
            sizes = [each.out_features for each in (self.q_proj, self.k_proj, self.v_proj)]
            q, k, v = (self._split(y) for y in torch.split(self._all_at_once(x), sizes, dim=-1))
        else:
            q, (k, v) = self._split(self.q_proj(x)), self.keys_values(context)
        if self.rotary:
            if cache is None:
                q, k = rotated(q, 0), rotated(k, 0)
            else:  # all that is new stands at one position
                q, k = (rotated(each.unsqueeze(-2), cache.steps).squeeze(-2) for each in (q, k))
        if cache is not None:
            k, v = cache.append(k, v)
            mask = cache.mask(mask)
        y = self._attend(q, k, v, mask, causal and cache is None, cache is not None)
        return self._join(y if head_scale is None else y * head_scale[:, None, None])

    def _all_at_once(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side."""
        if self.together is not None:
            packed: Tensor = self.together(x)
            return packed
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        return F.linear(x, weight, torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]))

    def pack(self, join: Callable[[list[nn.Linear]], nn.Module]) -> None:
        """Let one layer compute queries, keys and values of a self-attention; for inference."""
        if self.of_itself:
            self.together = join([self.q_proj, self.k_proj, self.v_proj])

    def over(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, cache: KeyValues | None = None) -> Tensor:
        """Attention of x [B, T, D] to memory [M, S, E], masked by [M, 1, 1 or T, S].

        B may be a multiple of M where T = 1: the rows of one memory are then taken as queries side by side, and the
        memory's keys and values are neither repeated nor computed again.
        """
        batch = x.size(0)
        q = self._split(self.q_proj(x).view(memory.size(0), -1, x.size(-1)))  # [M, H, B / M * T, d]
        if cache is not None and cache.length:
            assert cache.keys is not None
            assert cache.values is not None
            k, v = cache.keys, cache.values
        else:
            k, v = self.keys_values(memory)
            if cache is not None:
                k, v = cache.hold(k, v)
        y = self._attend(q, k, v, mask, causal=False, cached=cache is not None)
        return self._join(y).view(batch, -1, x.size(-1))

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """[M, S, E] -> keys and values [M, H, S, d], H being those of keys and values."""
        if not isinstance(self.k_proj, nn.Linear):  # packed
            return self._split(self.k_proj(memory)), self._split(self.v_proj(memory))
        weight = torch.cat([self.k_proj.weight, self.v_proj.weight])
        bias = torch.cat([self.k_proj.bias, self.v_proj.bias])
        k, v = F.linear(memory, weight, bias).chunk(2, dim=-1)
        return self._split(k), self._split(v)

    def weights_over(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, heads: int | None = None) -> Tensor:
        """What `over` weighs the memory with, mean over the first `heads` heads, or all: [B, T, S]."""
        q, k = self._split(self.q_proj(x)), self.keys_values(memory)[0]
        return _weights(q, self._shared(k), mask, causal=False)[:, :heads].mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)  # [B, T, H * d] -> [B, H, T, d]

    def _shared(self, x: Tensor) -> Tensor:
        """Keys or values, one for every query head."""
        return x if self.sharing == 1 else x.repeat_interleave(self.sharing, dim=1)

    def _join(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_proj(x.transpose(1, 2).flatten(2))
        return out

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, cached: bool = False
    ) -> Tensor:
        k, v = self._shared(k), self._shared(v)
        p = self.dropout.p if self.training else 0.0
        learns = torch.is_grad_enabled()
        few = FEW_BF16 if q.dtype == torch.bfloat16 else FEW * cached
        if q.device.type == "cpu" and p == 0.0 and not (learns or causal) and q.size(2) <= few:
            return _attend_few(q, k, v, mask).to(q.dtype)
        if cached or q.device.type != "cpu" or (p == 0.0 and (q.dtype == torch.float32 or not learns)):
            mask = mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype)
            return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=p, is_causal=causal)
        # On the CPU torch's fused kernel knows no dropout, and its backward in bf16 is far slower than plain products.
        if p == 0.0:
            return attend(q, k, v, mask, causal)
        weights = self.dropout(_weights(q, k, mask, causal))
        return torch.matmul(weights.to(v.dtype), v)


def visible(keep: Tensor) -> Tensor | None:
    """[B, S] -> mask [B, 1, 1, S]; None, which is quicker, where all is kept and asking costs no synchronisation."""
    asks = keep.device.type == "cpu" and not torch.compiler.is_compiling()  # a graph cannot depend on values
    return None if asks and bool(keep.all()) else keep[:, None, None, :]


def additive(mask: Tensor) -> Tensor:
    """What a mask adds to scores, in fp32: 0 where it is True, else -inf. An additive mask stays."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """[B, H, T, d], [B, H, S, d] -> softmax of the scaled products [B, H, T, S], in fp32."""
    scores = (q * q.size(-1) ** -0.5) @ k.transpose(-2, -1)
    if causal:
        scores = scores.masked_fill(future(q.size(2), k.size(2), q.device), float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, dim=-1, dtype=torch.float32)


def _attend_few(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """What torch's fused kernel computes, found faster where there are few queries, as in decoding.

    Products in bf16 pay where there is much to read; each number of rows needs a kernel of its own first.
    """
    sizes, dtype = q.shape[:-1], q.dtype if k.numel() >= MANY else torch.float32
    q, k, v = (x.flatten(0, 1).to(dtype) for x in (q, k, v))
    if dtype == torch.float32:
        scores = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=q.size(-1) ** -0.5)
        scores = scores.float()  # autocast gives bf16 after all
    else:
        scores = torch.bmm(q, k.transpose(1, 2)).float().mul_(q.size(-1) ** -0.5)
    if mask is not None:
        scores.view(*sizes, -1).add_(additive(mask))
    if scores.size(-1) >= VECTOR:
        weights = torch.softmax(scores, dim=-1)
    else:
        weights = scores.sub_(scores.amax(dim=-1, keepdim=True)).exp_()
        weights.div_(weights.sum(dim=-1, keepdim=True))
    return torch.bmm(weights.to(dtype), v).view(*sizes, -1)

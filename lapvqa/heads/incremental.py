"""torch's ``nn.TransformerDecoderLayer``, pre-norm, one step at a time over kept keys and values.

Computes what the layer computes in eval mode for a causal mask, without computing earlier places
again. Shapes: B images, R rows (one or several to an image), T tokens, M memory tokens, D width,
H attention heads, K = D / H.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.networks.decoder import merge_heads, split_heads


def memory_of(layer: nn.TransformerDecoderLayer, memory: Tensor) -> Tensor:
    """Return the keys and values [2, B, H, M, K] of ``memory`` [B, M, D] in cross-attention."""
    attention = layer.multihead_attn
    projected = _project(attention, memory, first=1, parts=2)
    batch, count, width = memory.shape
    heads = attention.num_heads
    return projected.view(batch, count, 2, heads, width // heads).permute(2, 0, 3, 1, 4)


def extend(
    layer: nn.TransformerDecoderLayer, x: Tensor, tokens: Tensor, memory: Tensor, position: int
) -> Tensor:
    """Map tokens [R, T, D] from ``position`` on, adding them to ``tokens`` [2, R, H, T_max, K].

    ``memory`` [2, B, H, M, K] is ``memory_of``'s. T is 1, or ``position`` is 0.
    """
    x = x + _attend_text(layer.self_attn, layer.norm1(x), tokens, position)
    x = x + _attend_memory(layer.multihead_attn, layer.norm2(x), memory)
    activation = layer.activation
    mapped: Tensor = x + layer.linear2(activation(layer.linear1(layer.norm3(x))))
    return mapped


def _attend_text(
    attention: nn.MultiheadAttention, x: Tensor, tokens: Tensor, position: int
) -> Tensor:
    count = x.shape[1]
    projected = _project(attention, x, first=0, parts=3)
    q, k, v = split_heads(projected, 3, attention.num_heads)
    tokens[0, :, :, position : position + count] = k
    tokens[1, :, :, position : position + count] = v
    keys, values = tokens[:, :, :, : position + count]
    attended = F.scaled_dot_product_attention(q, keys, values, is_causal=count > 1)
    mapped: Tensor = attention.out_proj(merge_heads(attended))
    return mapped


def _attend_memory(attention: nn.MultiheadAttention, x: Tensor, memory: Tensor) -> Tensor:
    """Nothing is masked here, so an image's rows are no more than further queries."""
    q = _project(attention, x, first=0, parts=1)
    (q,) = split_heads(q.view(memory.shape[1], -1, x.shape[-1]), 1, attention.num_heads)
    keys, values = memory
    if q.device.type == "cpu":
        # For few queries two matrix products are faster than the fused kernel.
        scores = (q * q.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
        attended = scores.softmax(dim=-1) @ values
    else:
        attended = F.scaled_dot_product_attention(q, keys, values)
    mapped: Tensor = attention.out_proj(merge_heads(attended)).view_as(x)
    return mapped


def _project(attention: nn.MultiheadAttention, x: Tensor, *, first: int, parts: int) -> Tensor:
    """Map [.., D] to [.., parts * D] by the rows of q (0), k (1), v (2) from ``first`` on."""
    width = x.shape[-1]
    rows = slice(first * width, (first + parts) * width)
    return F.linear(x, attention.in_proj_weight[rows], attention.in_proj_bias[rows])

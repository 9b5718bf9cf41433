"""A fast forward of a Qwen2 decoder; the `transformers` class holds the parameters and is the reference.

A tiny model on a CPU spends half its time outside matrix products. Here projections are fused. A rotation is one complex
product; for this, the rows of the query and key projections are reordered so that the two halves of a pair are adjacent (which
leaves their scalar products unchanged). The root mean square norm has its own gradient. Sequences are packed without padding,
and only their attention runs sequence by sequence. The last layer computes only the requested positions. Tests check that
outputs and gradients equal the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2Config, Qwen2Model

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention: queries ``[..., H, d]``, keys and values ``[..., H_kv, d]`` of some positions -> outputs ``[..., H d]``."""


@dataclass(frozen=True)
class Layer:
    """Fused weights of one layer; gradients flow back to the parameters."""

    norm_attention: Tensor
    qkv: Tensor
    """Queries, keys and values of all heads, ``[(H + 2 H_kv) d, D]``."""
    qkv_bias: Tensor
    out: Tensor
    norm_feed: Tensor
    gate_up: Tensor
    down: Tensor
    heads: tuple[int, int]
    """H, H_kv."""
    eps: float

    def forward(
        self, x: Tensor, rotation: Tensor, attend: Attend, select: Callable[[Tensor], Tensor] = lambda x: x
    ) -> Tensor:
        """Compute the layer, ``x [..., D]`` -> ``[..., D]``.

        Args:
            x: Residual stream.
            rotation: Result of `rotations`, ``[..., 1, d / 2]``.
            attend: Attention.
            select: Selects the requested output positions from ``[..., D]``.
        """
        heads, pairs = self.heads
        qkv = self.linear(self.norm(x, self.norm_attention), self.qkv, self.qkv_bias)
        turned, value = qkv.view(*x.shape[:-1], heads + 2 * pairs, -1).split([heads + pairs, pairs], -2)
        turned = torch.view_as_complex(turned.float().view(*turned.shape[:-1], -1, 2)) * rotation
        query, key = torch.view_as_real(turned).flatten(-2).to(qkv.dtype).split([heads, pairs], -2)
        x = select(x) + self.linear(select(attend(query, key, value)), self.out)
        gate, up = self.linear(self.norm(x, self.norm_feed), self.gate_up).chunk(2, -1)
        return x + self.linear(F_.silu(gate) * up, self.down)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Linear map: ``x [..., I]``, ``weight [O, I]`` -> ``[..., O]``."""
        return F_.linear(x, weight, bias)

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """`rms_norm` of ``x [..., D]``."""
        return rms_norm(x, weight, self.eps)

    def turned(self) -> Layer:
        """Return the same weights in column-major layout, which is fastest for products with few rows."""
        turned = {name: getattr(self, name).t().contiguous().t() for name in ("qkv", "out", "gate_up", "down")}
        return replace(self, **turned)


def fuse(llm: Qwen2Model) -> list[Layer]:
    """Fuse the current weights of the model's layers; call it again after every update."""
    return [_fuse(layer, llm.config) for layer in llm.layers]


def rotations(llm: Qwen2Model, positions: Tensor) -> Tensor:
    """Return the rotary embedding of ``positions [...]`` (may be fractional) as complex numbers ``[..., 1, d / 2]``, shared by
    all heads."""
    angles = positions[..., None, None].float() * llm.rotary_emb.inv_freq
    return torch.polar(torch.ones_like(angles), angles)


def parallel(
    llm: Qwen2Model, x: Tensor, positions: Tensor, sizes: Sequence[int], used: Tensor, *, recompute: bool = False
) -> Tensor:
    """Run all positions of several sequences at once; each attends to the earlier ones in its own sequence.

    Args:
        llm: The model.
        x: Embeddings ``[P, D]``, sequences concatenated without padding.
        positions: Rotary positions ``[P]``.
        sizes: Positions of each sequence; P is their sum.
        used: Requested output positions, ``[U]`` indices below P.
        recompute: Store only each layer's input for the gradient, and recompute the layer there (gradient checkpointing).

    Returns:
        Normalized hidden states ``[U, D]``.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        grouped = query.shape[1] != key.shape[1]
        rows = zip(*(part.transpose(0, 1)[None].split(sizes, 2) for part in (query, key, value)), strict=True)
        attended = [F_.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped) for q, k, v in rows]
        return torch.cat([row[0].transpose(0, 1) for row in attended]).flatten(1)

    rotation = rotations(llm, positions)
    *layers, last = fuse(llm)
    for layer in layers:
        if recompute and torch.is_grad_enabled():
            x = checkpoint(layer.forward, x, rotation, attend, use_reentrant=False)
        else:
            x = layer.forward(x, rotation, attend)
    x = last.forward(x, rotation, attend, lambda x: x.index_select(0, used))
    return rms_norm(x, llm.norm.weight, llm.config.rms_norm_eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``weight x / sqrt(mean(x^2) + eps)`` over the last axis."""
    if not torch.is_grad_enabled():
        return F_.rms_norm(x, x.shape[-1:], weight, eps)
    found: Tensor = _RmsNorm.apply(x, weight, eps)
    return found


class _RmsNorm(torch.autograd.Function):
    """Root mean square norm with a fused gradient: on the CPU, torch's takes a dozen passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps)).rsqrt_()
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return ``dx = (g w - u mean(g w u)) / rms`` and ``dw = sum(g u)`` with u = x / rms."""
        (gradient,) = gradients
        unit, inverse, weight = ctx.saved_tensors
        product = gradient * unit
        along = (product @ weight)[..., None] / len(weight)
        dx = torch.addcmul(gradient * weight, unit, along, value=-1).mul_(inverse)
        return dx, product.flatten(0, -2).sum(0), None


def _fuse(layer: Any, config: Qwen2Config) -> Layer:
    attention, feed = layer.self_attn, layer.mlp

    def paired(rows: Tensor) -> Tensor:
        """Reorder rows ``[H d, ...]`` of a projection so that those that rotate together are adjacent."""
        halves = rows.unflatten(0, (-1, 2, attention.head_dim // 2))
        return halves.transpose(1, 2).flatten(0, 2)

    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    return Layer(
        norm_attention=layer.input_layernorm.weight,
        qkv=torch.cat([paired(q.weight), paired(k.weight), v.weight]),
        qkv_bias=torch.cat([paired(q.bias), paired(k.bias), v.bias]),
        out=attention.o_proj.weight,
        norm_feed=layer.post_attention_layernorm.weight,
        gate_up=torch.cat([feed.gate_proj.weight, feed.up_proj.weight]),
        down=feed.down_proj.weight,
        heads=(config.num_attention_heads, config.num_key_value_heads),
        eps=config.rms_norm_eps,
    )

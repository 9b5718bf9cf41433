"""A fast forward of a Qwen2 decoder; the `transformers` class holds the parameters and is the reference.

A tiny model on a CPU spends half its time outside matrix products. Here projections are fused. A rotation is one complex
product; for this, the rows of the query and key projections are reordered so that the two halves of a pair are adjacent (which
leaves their scalar products unchanged). The root mean square norm has its own gradient. Sequences are packed without padding,
and only their attention runs sequence by sequence. The last layer computes only the requested positions. Tests check that
outputs and gradients equal the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeVar

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
        rotated, value = qkv.view(*x.shape[:-1], heads + 2 * pairs, -1).split([heads + pairs, pairs], -2)
        rotated = torch.view_as_complex(rotated.float().view(*rotated.shape[:-1], -1, 2)) * rotation
        query, key = torch.view_as_real(rotated).flatten(-2).to(qkv.dtype).split([heads, pairs], -2)
        x = select(x) + self.linear(select(attend(query, key, value)), self.out)
        gate, up = self.linear(self.norm(x, self.norm_feed), self.gate_up).chunk(2, -1)
        return x + self.linear(F_.silu(gate) * up, self.down)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Linear map: ``x [..., I]``, ``weight [O, I]`` -> ``[..., O]``."""
        return F_.linear(x, weight, bias)

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """`rms_norm` of ``x [..., D]``."""
        return rms_norm(x, weight, self.eps)

    def column_major(self, dtype: torch.dtype) -> Layer:
        """Return the weights of all products in a type, in column-major layout, which is fastest for products with few rows."""
        products = ("qkv", "out", "gate_up", "down")
        weights = {name: getattr(self, name).to(dtype).t().contiguous().t() for name in products}
        return replace(self, **weights, qkv_bias=self.qkv_bias.to(dtype))


L = TypeVar("L", bound=Layer)
WEIGHTS = (
    "input_layernorm.weight",
    *(f"self_attn.{part}_proj.{what}" for part in "qkv" for what in ("weight", "bias")),
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
)
"""Names of a layer's weights."""


def fuse(llm: Qwen2Model) -> list[Layer]:
    """Fuse the current weights of the model's layers; call it again after every update."""
    # Attributes rather than named parameters: a low-rank update parametrizes a projection's weight.
    return [fuse_layer(Layer, {name: attrgetter(name)(layer) for name in WEIGHTS}, llm.config) for layer in llm.layers]


def fuse_layer(kind: type[L], weights: Mapping[str, Tensor], config: Qwen2Config) -> L:
    """Fuse one layer's ``weights`` by name; all may have the same leading axis in addition, one entry per model."""
    lead = weights["input_layernorm.weight"].dim() - 1
    heads = config.num_attention_heads, config.num_key_value_heads
    half = weights["self_attn.q_proj.weight"].shape[lead] // heads[0] // 2

    def paired(name: str) -> Tensor:
        """Return rows ``[..., H d, I]`` of a projection, reordered so that those that rotate together are adjacent."""
        halves = weights[f"self_attn.{name}"].unflatten(lead, (-1, 2, half))
        return halves.transpose(lead + 1, lead + 2).flatten(lead, lead + 2)

    def concatenate(suffix: str) -> Tensor:
        parts = [paired(f"q_proj.{suffix}"), paired(f"k_proj.{suffix}"), weights[f"self_attn.v_proj.{suffix}"]]
        return torch.cat(parts, lead)

    return kind(
        norm_attention=weights["input_layernorm.weight"],
        qkv=concatenate("weight"),
        qkv_bias=concatenate("bias"),
        out=weights["self_attn.o_proj.weight"],
        norm_feed=weights["post_attention_layernorm.weight"],
        gate_up=torch.cat([weights["mlp.gate_proj.weight"], weights["mlp.up_proj.weight"]], lead),
        down=weights["mlp.down_proj.weight"],
        heads=heads,
        eps=config.rms_norm_eps,
    )


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


def visible_positions(mask: Tensor) -> Tensor:
    """Return a mask ``[B, 1, S, S]``: each position sees the earlier ones of ``mask [B, S]``, and itself.

    Padding sees itself too, which avoids NaN.
    """
    square = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device)
    return (mask[:, None, None] & square.tril()) | torch.eye(len(square), dtype=torch.bool, device=mask.device)


def attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """Return ``[B, S, H d]`` for queries ``[B, S, H, d]``, keys and values ``[B, S, H_kv, d]``, ``visible [B, 1, S, S]``."""
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    attended = F_.scaled_dot_product_attention(q, k, v, visible, enable_gqa=q.shape[1] != k.shape[1])
    return attended.transpose(1, 2).flatten(2)


def token_attention(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Return the attention of one new position, with R = rows x H_kv key heads.

    Args:
        query: ``[..., H, d]``, R H / H_kv rows of d in all.
        keys: Cached keys ``[R, S, d]``, the new position's among them.
        values: Cached values ``[R, S, d]``.
        bias: ``[R, 1, S]``, added to the scores.

    Returns:
        ``[R, H / H_kv, d]``.
    """
    groups = query.reshape(len(keys), -1, query.shape[-1])  # the queries that share a key
    scores = torch.baddbmm(bias, groups, keys.mT, alpha=query.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), values)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``weight x / sqrt(mean(x^2) + eps)`` over the last axis."""
    if not torch.is_grad_enabled():
        return F_.rms_norm(x, x.shape[-1:], weight, eps)
    normed: Tensor = _RmsNorm.apply(x, weight, eps)
    return normed


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
        projection = (product @ weight)[..., None] / len(weight)
        dx = torch.addcmul(gradient * weight, unit, projection, value=-1).mul_(inverse)
        return dx, product.flatten(0, -2).sum(0), None

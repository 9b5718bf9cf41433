"""One-token steps of a Qwen2 decoder with a preallocated key-value cache.

The model is the `transformers` class, and so is the prefix's forward; only the loop over new tokens is here, because a tiny
model spends its roll-outs in the library's per-call bookkeeping (``tests/benchmarks/diffro_step.py`` prints the ratio). A
test holds its logits equal to the parallel forward's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor
from transformers import DynamicCache, Qwen2Model


class Decoder:
    """Continues a batch of prefixes; weights are fused once, so make a new one after every update."""

    def __init__(self, llm: Qwen2Model, embeddings: Tensor, mask: Tensor, positions: Tensor, room: int) -> None:
        """Runs the prefix.

        Args:
            llm: The model.
            embeddings: Prefix ``[B, L, D]``, padded on the left.
            mask: ``[B, L]``, True on what is no padding.
            positions: Rotary positions ``[B, L]``; the tokens that follow count on from the last.
            room: Most tokens that will follow.
        """
        config = llm.config
        self.heads, self.pairs = config.num_attention_heads, config.num_key_value_heads
        self.eps, self.llm = config.rms_norm_eps, llm
        self.layers = [_fuse(layer) for layer in llm.layers]
        cache = DynamicCache(config=config)
        output = llm(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        self.hidden: Tensor = output.last_hidden_state[:, -1]
        """``[B, D]``, the newest position's normalised output."""
        self.filled = embeddings.shape[1]
        self.keys = [F_.pad(layer.keys, (0, 0, 0, room)) for layer in cache.layers]
        self.values = [F_.pad(layer.values, (0, 0, 0, room)) for layer in cache.layers]
        self.mask = F_.pad(mask, (0, room), value=True)[:, None, None]
        following = positions[:, -1:] + 1 + torch.arange(room, device=mask.device)
        cos, sin = llm.rotary_emb(embeddings, following)
        self.cos, self.sin = cos.transpose(0, 1)[:, :, None], sin.transpose(0, 1)[:, :, None]
        self.start = self.filled

    def step(self, x: Tensor) -> Tensor:
        """Embeddings ``[B, D]`` of one more token each -> normalised hidden states ``[B, D]``."""
        cos, sin = self.cos[self.filled - self.start], self.sin[self.filled - self.start]
        end = self.filled + 1
        for index, layer in enumerate(self.layers):
            h = F_.rms_norm(x, x.shape[-1:], layer["norm_attention"], self.eps)
            qkv = F_.linear(h, layer["qkv"], layer["qkv_bias"]).view(x.shape[0], self.heads + 2 * self.pairs, -1)
            rotated, value = qkv[:, : self.heads + self.pairs], qkv[:, self.heads + self.pairs :]
            rotated = rotated * cos + _rotate_half(rotated) * sin
            self.keys[index][:, :, self.filled] = rotated[:, self.heads :]
            self.values[index][:, :, self.filled] = value
            attended = F_.scaled_dot_product_attention(
                rotated[:, : self.heads, None],
                self.keys[index][:, :, :end],
                self.values[index][:, :, :end],
                attn_mask=self.mask[..., :end],
                enable_gqa=self.heads != self.pairs,
            )
            x = x + F_.linear(attended.flatten(1), layer["out"])
            h = F_.rms_norm(x, x.shape[-1:], layer["norm_feed"], self.eps)
            gate, up = F_.linear(h, layer["gate_up"]).chunk(2, -1)
            x = x + F_.linear(F_.silu(gate) * up, layer["down"])
        self.filled = end
        return F_.rms_norm(x, x.shape[-1:], self.llm.norm.weight, self.eps)

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows of the batch alone."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.mask, self.cos, self.sin = self.mask[rows], self.cos[:, rows], self.sin[:, rows]


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def _fuse(layer: Any) -> dict[str, Tensor]:
    attention, feed = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return {
        "norm_attention": layer.input_layernorm.weight,
        "qkv": torch.cat([projection.weight for projection in projections]),
        "qkv_bias": torch.cat([projection.bias for projection in projections]),
        "out": attention.o_proj.weight,
        "norm_feed": layer.post_attention_layernorm.weight,
        "gate_up": torch.cat([feed.gate_proj.weight, feed.up_proj.weight]),
        "down": feed.down_proj.weight,
    }

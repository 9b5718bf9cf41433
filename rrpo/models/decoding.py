"""One-token steps of a Qwen2 decoder with a preallocated key-value cache.

Only the loop over new tokens and its attention are here; the layers are `rrpo.models.transformer`'s. A tiny model spends its
roll-outs in the library's per-call bookkeeping (``tests/benchmarks/update.py`` prints the ratio). A test holds the logits
equal to the parallel forward's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F_
from torch import Tensor
from transformers import Qwen2Model

from rrpo.models.transformer import fuse, rms_norm, rotations


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
        self.llm = llm
        self.filled = self.start = embeddings.shape[1]
        self.keys: list[Tensor] = []
        """A layer each, ``[B, H_kv, L + room, d]``."""
        self.values: list[Tensor] = []
        bias = torch.zeros_like(mask, dtype=embeddings.dtype).masked_fill_(~mask, -math.inf)
        bias = F_.pad(bias, (0, room)).repeat_interleave(llm.config.num_key_value_heads, 0)
        self.bias = bias.view(len(mask), -1, 1, bias.shape[1])
        """``[B, H_kv, 1, L + room]``, added to scores: -inf on padding."""
        visible = mask[:, None, None] & torch.ones(self.start, self.start, dtype=torch.bool, device=mask.device).tril()
        visible = visible | torch.eye(self.start, dtype=torch.bool, device=mask.device)  # padding sees itself: no NaN

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k, v = (part.transpose(1, 2) for part in (query, key, value))
            self.keys.append(F_.pad(k, (0, 0, 0, room)))
            self.values.append(F_.pad(v, (0, 0, 0, room)))
            attended = F_.scaled_dot_product_attention(q, k, v, visible, enable_gqa=q.shape[1] != k.shape[1])
            return attended.transpose(1, 2).flatten(2)

        x, rotation = embeddings, rotations(llm, positions)
        *layers, last = fuse(llm)
        for layer in layers:
            x = layer.forward(x, rotation, attend)
        x = last.forward(x, rotation, attend, lambda x: x[:, -1])
        self.hidden = rms_norm(x, llm.norm.weight, llm.config.rms_norm_eps)
        """``[B, D]``, the newest position's normalised output."""
        self.layers = [layer.turned() for layer in (*layers, last)]
        following = positions[:, -1:] + 1 + torch.arange(room, device=mask.device)
        self.rotation = rotations(llm, following)

    def step(self, x: Tensor) -> None:
        """Takes embeddings ``[B, D]`` of one more token each; `hidden` is then theirs."""
        rotation, end = self.rotation[:, self.filled - self.start], self.filled + 1
        bias = self.bias.flatten(0, 1)[..., :end]
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):

            def attend(
                query: Tensor, key: Tensor, value: Tensor, keys: Tensor = keys, values: Tensor = values
            ) -> Tensor:
                keys[:, :, self.filled], values[:, :, self.filled] = key, value
                seen, said = keys.flatten(0, 1)[:, :end], values.flatten(0, 1)[:, :end]
                groups = query.reshape(len(seen), -1, query.shape[-1])  # the queries that share a key
                scores = torch.baddbmm(bias, groups, seen.mT, alpha=query.shape[-1] ** -0.5)
                return torch.bmm(scores.softmax(-1), said).view(len(query), -1)

            x = layer.forward(x, rotation, attend)
        self.filled = end
        self.hidden = rms_norm(x, self.llm.norm.weight, self.llm.config.rms_norm_eps)

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows of the batch alone."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.bias, self.rotation = self.bias[rows], self.rotation[rows]

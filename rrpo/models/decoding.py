"""One-token steps of a Qwen2 decoder with a preallocated key-value cache.

It contains only the loop over new tokens and its attention; the layers are those of `rrpo.models.transformer`. With the
library's implementation, a tiny model's roll-outs are dominated by per-call overhead (``tests/benchmarks/update.py``
prints the ratio). A test checks that the logits equal those of the parallel forward.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F_
from torch import Tensor
from transformers import Qwen2Model

from rrpo.models.transformer import fuse, rms_norm, rotations


class Decoder:
    """Continue a batch of prefixes. Weights are fused once, so create a new decoder after every update."""

    def __init__(self, llm: Qwen2Model, embeddings: Tensor, mask: Tensor, positions: Tensor, room: int) -> None:
        """Run the prefix.

        Args:
            llm: The model.
            embeddings: Prefix ``[B, L, D]``, padded on the left.
            mask: ``[B, L]``, False on padding.
            positions: Rotary positions ``[B, L]``; those of the following tokens continue from the last.
            room: Maximum number of following tokens.
        """
        self.llm = llm
        self.filled = self.start = embeddings.shape[1]
        self.keys: list[Tensor] = []
        """One entry per layer, ``[B, H_kv, L + room, d]``."""
        self.values: list[Tensor] = []
        bias = torch.zeros_like(mask, dtype=embeddings.dtype).masked_fill_(~mask, -math.inf)
        bias = F_.pad(bias, (0, room)).repeat_interleave(llm.config.num_key_value_heads, 0)
        self.bias = bias.view(len(mask), -1, 1, bias.shape[1])
        """``[B, H_kv, 1, L + room]``, added to scores: -inf on padding."""
        visible = mask[:, None, None] & torch.ones(self.start, self.start, dtype=torch.bool, device=mask.device).tril()
        visible = visible | torch.eye(
            self.start, dtype=torch.bool, device=mask.device
        )  # padding attends to itself, which avoids NaN

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
        """``[B, D]``, normalized output at the newest position."""
        self.layers = [layer.turned() for layer in (*layers, last)]
        following = positions[:, -1:] + 1 + torch.arange(room, device=mask.device)
        self.rotation = rotations(llm, following)

    def step(self, x: Tensor) -> None:
        """Append embeddings ``[B, D]`` of one token per row, and update `hidden`."""
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
        """Keep only these rows of the batch."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.bias, self.rotation = self.bias[rows], self.rotation[rows]

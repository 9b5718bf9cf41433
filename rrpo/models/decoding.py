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

from rrpo.models.transformer import attention, fuse, rms_norm, rotations, token_attention, visible_positions


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
        visible = visible_positions(mask)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self.keys.append(F_.pad(key.transpose(1, 2), (0, 0, 0, room)))
            self.values.append(F_.pad(value.transpose(1, 2), (0, 0, 0, room)))
            return attention(query, key, value, visible)

        x, rotation = embeddings, rotations(llm, positions)
        *layers, last = fuse(llm)
        for layer in layers:
            x = layer.forward(x, rotation, attend)
        x = last.forward(x, rotation, attend, lambda x: x[:, -1])
        self.hidden = rms_norm(x, llm.norm.weight, llm.config.rms_norm_eps)
        """``[B, D]``, normalized output at the newest position."""
        # Autocast would convert fused weights, which are no parameters, for every token.
        device, dtype = x.device.type, x.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        self.layers = [layer.column_major(dtype) for layer in (*layers, last)]
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
                filled_keys, filled_values = (cache.flatten(0, 1)[:, :end] for cache in (keys, values))
                return token_attention(query, filled_keys, filled_values, bias).view(len(query), -1)

            x = layer.forward(x, rotation, attend)
        self.filled = end
        self.hidden = rms_norm(x, self.llm.norm.weight, self.llm.config.rms_norm_eps)

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.bias, self.rotation = self.bias[rows], self.rotation[rows]

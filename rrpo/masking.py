"""Masks of unequal lengths: nothing that a model or a loss computes may depend on how much padding a batch carries."""

from __future__ import annotations

import torch
import torch.nn.functional as F_
from torch import Tensor


def valid_mask(lengths: Tensor, max_len: int) -> Tensor:
    """``[B]`` -> ``[B, T]``: True on the first ``lengths[i]`` positions of row i."""
    return torch.arange(max_len, device=lengths.device)[None, :] < lengths[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values [B, T]`` over the valid positions of each row, ``[B]``; 0 for an empty row."""
    return values.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)


def sample_norm(values: Tensor, mask: Tensor) -> Tensor:
    """L2 norm of each sample of ``values [B, T, D]`` over valid positions and channels, ``[B]``."""
    return values.masked_fill(~mask[..., None], 0.0).flatten(1).norm(dim=1)


def neighbours(x: Tensor, width: int, dilation: int = 1, stride: int = 1) -> Tensor:
    """Every ``stride``-th frame of ``x [B, T, C]`` beside those around it, ``[B, ceil(T / stride), width * C]``; zeros past the
    ends.

    A linear map of it is a convolution over time that leaves channels last: faster than one that wants them first.
    """
    T, reach = x.shape[1], dilation * (width // 2)
    x = F_.pad(x, (0, 0, reach, reach))
    return torch.cat([x[:, start : start + T : stride] for start in range(0, dilation * width, dilation)], 2)

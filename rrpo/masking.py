"""Masks for batches of unequal lengths. No result of a model or loss may depend on the amount of padding in a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F_
from torch import Tensor


def valid_mask(lengths: Tensor, max_len: int) -> Tensor:
    """Return a mask ``[B, T]`` for lengths ``[B]``: True on the first ``lengths[i]`` positions of row i."""
    return torch.arange(max_len, device=lengths.device)[None, :] < lengths[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean ``[B]`` of ``values [B, T]`` over the valid positions of each row; 0 for an empty row."""
    return values.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)


def sample_norm(values: Tensor, mask: Tensor) -> Tensor:
    """Return the L2 norm ``[B]`` of each sample of ``values [B, T, D]`` over valid positions and channels."""
    return values.masked_fill(~mask[..., None], 0.0).flatten(1).norm(dim=1)


def with_eos(tokens: Tensor, lengths: Tensor, eos: int) -> Tensor:
    """Return ``[B, N + 1]``: ``tokens [B, N]`` with eos after the first ``lengths [B]`` of each row."""
    return F_.pad(tokens, (0, 1)).scatter(1, lengths[:, None], eos)


def neighbours(x: Tensor, width: int, dilation: int = 1, stride: int = 1) -> Tensor:
    """Stack every ``stride``-th frame of ``x [B, T, C]`` with its neighbors, ``[B, ceil(T / stride), width * C]``; pad with
    zeros.

    A linear map of the result is a channels-last convolution over time, which is faster than a channels-first one.
    """
    T, reach = x.shape[1], dilation * (width // 2)
    x = F_.pad(x, (0, 0, reach, reach))
    return torch.cat([x[:, start : start + T : stride] for start in range(0, dilation * width, dilation)], 2)

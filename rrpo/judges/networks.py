"""Networks of judges and recognisers. None depends on padding: it is zeroed before every convolution, normalization is per frame,
recurrence runs on packed sequences, pooling is masked."""

from __future__ import annotations

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from rrpo.masking import neighbours, valid_mask

TYPICAL = 75.0
"""Frames of an utterance of typical length."""


class ConvBlock(nn.Module):
    """Masked convolution over time, layer norm, GELU, residual if shapes allow. ``[B, T, C] -> [B, ceil(T / stride), D]``."""

    def __init__(self, inlet: int, dim: int, width: int = 3, *, dilation: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Linear(width * inlet, dim)
        self.norm = nn.LayerNorm(dim)
        self.residual = inlet == dim and stride == 1
        self.width, self.dilation, self.stride = width, dilation, stride

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, T, C], lengths [B]`` -> the block's output and its lengths."""
        masked = x * valid_mask(lengths, x.shape[1])[..., None]
        y = F_.gelu(self.norm(self.conv(neighbours(masked, self.width, self.dilation, self.stride))))
        return (x + y if self.residual else y), (lengths + self.stride - 1) // self.stride


class ConvGru(nn.Module):
    """``val``: strided convolutions, a bidirectional GRU, mean and maximum over time. ``X [B, T, C] -> [B, outputs]``."""

    def __init__(self, inlet: int, dim: int, outputs: int) -> None:
        super().__init__()
        blocks = [ConvBlock(inlet, dim, 5, stride=2), ConvBlock(dim, dim, 3), ConvBlock(dim, dim, 3, stride=2)]
        self.blocks = nn.ModuleList(blocks)
        self.gru = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * dim, outputs))

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, outputs]``."""
        x = X
        for block in self.blocks:
            x, lengths = block(x, lengths)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        h, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        outside = ~valid_mask(lengths, h.shape[1])[..., None]
        mean = h.masked_fill(outside, 0.0).sum(1) / lengths[:, None]
        top = h.masked_fill(outside, -2.0).amax(1)  # a GRU's output lies in (-1, 1)
        outputs: Tensor = self.head(torch.cat([mean, top], 1))
        return outputs


class StatsTdnn(nn.Module):
    """``test``: dilated convolutions at full rate; x-vector statistics (mean and spread over time) and the mean near the end. ``X
    [B, T, C] -> [B, outputs]``.

    Statistics over the whole utterance lose a rise at the end, so one channel encodes how close a frame is to the end.
    """

    ENDING = 12.0
    """Frames over which the weight of closeness to the end decays by e."""

    def __init__(self, inlet: int, dim: int, outputs: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                ConvBlock(inlet + 1, dim, 5),
                ConvBlock(dim, dim, 3, dilation=2),
                ConvBlock(dim, dim, 3, dilation=4),
                ConvBlock(dim, 2 * dim, 1),
            ]
        )
        self.head = nn.Sequential(
            nn.Linear(6 * dim + 1, dim), nn.LayerNorm(dim), nn.GELU(), nn.Dropout(0.2), nn.Linear(dim, outputs)
        )

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, outputs]``."""
        remaining = lengths[:, None] - 1 - torch.arange(X.shape[1], device=X.device)
        closeness = torch.exp(-remaining / self.ENDING).masked_fill(remaining < 0, 0.0)[..., None].to(X.dtype)
        x = torch.cat([X, closeness], 2)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        outside = ~valid_mask(lengths, x.shape[1])[..., None]
        mean = x.masked_fill(outside, 0.0).sum(1) / lengths[:, None]
        spread = ((x - mean[:, None]).masked_fill(outside, 0.0).square().sum(1) / lengths[:, None] + 1e-5).sqrt()
        end = (x * closeness).sum(1) / closeness.sum(1)
        size = (lengths[:, None] / TYPICAL).log().to(X.dtype)
        outputs: Tensor = self.head(torch.cat([mean, spread, end, size], 1))
        return outputs


class CtcNetwork(nn.Module):
    """Phone network: strided, then dilated convolutions. ``X [B, T, C] -> logits [B, ceil(T / 2), classes]``, lengths."""

    DILATIONS = (1, 2, 4, 1)

    def __init__(self, inlet: int, dim: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ConvBlock(inlet, dim, 5, stride=2)])
        self.blocks += [ConvBlock(dim, dim, 3, dilation=dilation) for dilation in self.DILATIONS]
        self.head = nn.Linear(dim, classes)

    def forward(self, X: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, T', classes]`` and their lengths ``[B]``."""
        x = X
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return self.head(x), lengths

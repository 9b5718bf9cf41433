"""Harmonics in log-mel frames: the spectrum that a voice with a given F0 adds to a smooth envelope, and an F0 tracker.

A pulse train seen through the analysis window has a line at each multiple of its F0. Its *comb* in a mel band is the log of the
band's power over that of noise of the same power density: peaks and valleys where the bands resolve harmonics, zero elsewhere.
A source-filter decoder adds a comb to an envelope, so that one number describes the voice; direct regression of the bands blurs
every harmonic that it cannot place. No source uses this for a mel codec; declared default.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.audio import mel_centres, mel_filters
from rrpo.corpus.config import AudioConfig

LOWEST, HIGHEST = 65.0, 520.0
"""Range of F0 in Hz: three octaves."""
ROWS = 4
"""Combs per semitone."""
VALLEY = 1e-3
"""Minimum power between harmonics, as a share of the noise's: a moving F0 fills the valleys."""
RESOLVED_HZ = 1800.0
"""Upper frequency in Hz of the bands that show F0."""
SMOOTH = 0.22
"""Number of lowest cosine components treated as envelope instead of harmonics, as a share of those bands."""
FINE = 64
"""Points of the window's spectrum per bin."""


def row(hertz: float) -> float:
    """Return the row of an F0 among the combs."""
    return 12 * ROWS * math.log2(hertz / LOWEST)


@lru_cache(maxsize=8)
def combs(audio: AudioConfig) -> Tensor:
    """Return log combs ``[R, M]``, one F0 per row, `ROWS` per semitone from `LOWEST` to `HIGHEST`."""
    bins = torch.arange(audio.n_fft // 2 + 1, dtype=torch.float64) * audio.sample_rate / audio.n_fft
    window = torch.fft.rfft(torch.hann_window(audio.n_fft, dtype=torch.float64), n=FINE * audio.n_fft).abs().square()
    step = audio.sample_rate / audio.n_fft / FINE  # Hz between two points of `window`
    noise = (2 * window.sum() - window[0]) * step
    rows = []
    for index in range(round(row(HIGHEST)) + 1):
        f0 = LOWEST * 2 ** (index / 12 / ROWS)
        harmonics = torch.arange(1, int(audio.sample_rate / 2 / f0) + 1, dtype=torch.float64) * f0
        distance = ((bins[:, None] - harmonics).abs() / step).round().long()
        rows.append(window[distance.clamp(max=len(window) - 1)].sum(1) * f0 / noise)
    filters = mel_filters(audio).double()
    return ((torch.stack(rows) @ filters) / filters.sum(0).clamp(min=1e-9)).clamp(min=VALLEY).log().float()


def comb(table: Tensor, rows: Tensor) -> Tensor:
    """Return the comb ``[..., M]`` at ``rows [...]`` (fractional rows) of ``table [R, M]``; differentiable in ``rows``."""
    below = rows.detach().floor().long().clamp(0, len(table) - 2)
    above = (rows - below)[..., None]
    return table[below] * (1 - above) + table[below + 1] * above


@torch.no_grad()
def tracked(F: Tensor, audio: AudioConfig) -> tuple[Tensor, Tensor]:
    """Return the row ``[B, T]`` of the comb most similar to each frame of ``F [B, T, M]``, and the similarity: a correlation up
    to 1.

    Both are compared below `RESOLVED_HZ` after their smooth part is removed. On rendered speech, 98 % of the frames that Praat
    classifies as voiced are within a semitone of Praat's F0.
    """
    table, projection = _matched(audio, F.device)
    detail = F[..., : len(projection)].float() @ projection
    similarity = detail @ table.T / (detail.norm(dim=-1, keepdim=True) + 1e-3)  # [B, T, R]
    best = similarity.argmax(-1).clamp(1, similarity.shape[-1] - 2)
    before, peak, after = (similarity.gather(-1, (best + shift)[..., None])[..., 0] for shift in (-1, 0, 1))
    curvature = (before - 2 * peak + after).clamp(max=-1e-4)
    return best + (0.5 * (before - after) / curvature).clamp(-0.5, 0.5), similarity.amax(-1)


@lru_cache(maxsize=8)
def _matched(audio: AudioConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return combs ``[R, L]`` of unit norm without their smooth part, and the projection ``[L, L]`` that removes it."""
    bands = max(2, int((mel_centres(audio) < RESOLVED_HZ).sum()))
    position = (torch.arange(bands, dtype=torch.float64) + 0.5) / bands
    cosines = torch.cos(math.pi * position[:, None] * torch.arange(max(1, round(SMOOTH * bands))))
    basis, _ = torch.linalg.qr(cosines)
    projection = (torch.eye(bands, dtype=torch.float64) - basis @ basis.T).float()
    return F_.normalize(combs(audio)[:, :bands].clamp(min=-3) @ projection, dim=1).to(device), projection.to(device)

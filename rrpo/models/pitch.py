"""Harmonics in log-mel frames: what a voice of some F0 adds to a smooth spectrum, and the F0 that a frame shows.

A pulse train seen through the analysis window has a line at each multiple of its F0. Its *comb* in a mel band is the log of the
band's power over that of noise of the same power density: peaks and valleys where the bands resolve harmonics, nothing where
they do not. A source-filter decoder adds a comb to an envelope and so says a voice with one number, where a regression of the
bands themselves blurs every harmonic that it cannot place. No source gives this for a mel codec; declared default.
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
"""Hz, the range of F0: three octaves."""
ROWS = 4
"""Combs a semitone."""
VALLEY = 1e-3
"""Least power between harmonics, as a share of the noise's: a moving F0 fills valleys up."""
RESOLVED_HZ = 1800.0
"""Bands below it show F0."""
SMOOTH = 0.22
"""Cosines, as a share of those bands, that are counted as envelope and not as harmonics."""
FINE = 64
"""Points of the window's spectrum between two bins."""


def row(hertz: float) -> float:
    """Place of an F0 among the combs."""
    return 12 * ROWS * math.log2(hertz / LOWEST)


@lru_cache(maxsize=8)
def combs(audio: AudioConfig) -> Tensor:
    """Log combs ``[R, M]``, an F0 a row, `ROWS` a semitone from `LOWEST` to `HIGHEST`."""
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


def comb(table: Tensor, place: Tensor) -> Tensor:
    """The comb ``[..., M]`` at ``place [...]`` (rows, fractions too) of ``table [R, M]``; differentiable in ``place``."""
    below = place.detach().floor().long().clamp(0, len(table) - 2)
    above = (place - below)[..., None]
    return table[below] * (1 - above) + table[below + 1] * above


@torch.no_grad()
def tracked(F: Tensor, audio: AudioConfig) -> tuple[Tensor, Tensor]:
    """The row ``[B, T]`` of the comb that resembles each frame of ``F [B, T, M]`` most, and how much: a correlation up to 1.

    Compared is what is left of both below `RESOLVED_HZ` after their smooth part is taken away. On rendered speech 98 % of the
    frames that Praat calls voiced lie within a semitone of Praat's F0.
    """
    table, rest = _matched(audio, F.device)
    fine = F[..., : len(rest)].float() @ rest
    likeness = fine @ table.T / (fine.norm(dim=-1, keepdim=True) + 1e-3)  # [B, T, R]
    best = likeness.argmax(-1).clamp(1, likeness.shape[-1] - 2)
    before, peak, after = (likeness.gather(-1, (best + shift)[..., None])[..., 0] for shift in (-1, 0, 1))
    bend = (before - 2 * peak + after).clamp(max=-1e-4)
    return best + (0.5 * (before - after) / bend).clamp(-0.5, 0.5), likeness.amax(-1)


@lru_cache(maxsize=8)
def _matched(audio: AudioConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Combs ``[R, L]`` of unit length without their smooth part, and the projection ``[L, L]`` that takes it away."""
    bands = max(2, int((mel_centres(audio) < RESOLVED_HZ).sum()))
    place = (torch.arange(bands, dtype=torch.float64) + 0.5) / bands
    cosines = torch.cos(math.pi * place[:, None] * torch.arange(max(1, round(SMOOTH * bands))))
    basis, _ = torch.linalg.qr(cosines)
    rest = (torch.eye(bands, dtype=torch.float64) - basis @ basis.T).float()
    return F_.normalize(combs(audio)[:, :bands].clamp(min=-3) @ rest, dim=1).to(device), rest.to(device)

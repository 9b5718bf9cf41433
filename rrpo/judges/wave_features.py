"""Features of the ``test`` judge, computed only from the wave: cepstra, their deltas, loudness, and indicators of F0.

They differ in kind from F: mel-frequency cepstra of a short window (25 ms) describe the spectral shape, and the autocorrelation
of a long window (64 ms) at lags of 60 to 500 Hz, on a logarithmic axis, describes pitch and voicing. It is a generalized
autocorrelation (Tolonen & Karjalainen 2000): of the magnitude instead of the power spectrum, which flattens formants.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F_
import torchaudio.functional as taf
from torch import Tensor

from rrpo.masking import valid_mask
from rrpo.models.vocoder import magnitude

HOP = 0.02
"""Seconds between frames."""
SHORT, LONG = 0.025, 0.064
"""Window lengths of the cepstra and of the autocorrelation, in seconds."""
CEPSTRAL_FFT = 512
"""Samples to which the short window is padded."""
CEPSTRA = 20
"""Number of coefficients; the zeroth carries loudness."""
LAGS = 40
"""Autocorrelation lags per frame, log-spaced."""
PITCH = (60.0, 500.0)
"""Range of the lags in Hz."""
SPLIT_HZ = 2000.0
"""Boundary frequency of the spectral balance, in Hz."""
SIZE = 2 * CEPSTRA + LAGS + 3
"""Features per frame."""


def wave_features(wave: Tensor, lengths: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """``wave [B, S]``, ``lengths [B]`` in samples -> features ``[B, T, SIZE]`` at 50 Hz and their number ``[B]``.

    In order: cepstra, their deltas, autocorrelation, log energy, its delta, spectral balance (log ratio). Zero past the end.
    """
    lengths = lengths.to(wave.device)
    hop, window = round(HOP * sample_rate), round(LONG * sample_rate)
    frames = 1 + lengths // hop
    T = int(frames.max()) + 2  # silent frames after the last one, independent of the batch, for the deltas
    wave = wave * valid_mask(lengths, wave.shape[1])
    wave = F_.pad(wave, (window // 2, max(0, T * hop + window - wave.shape[1])))
    spectrum = magnitude(_spectrum(wave, torch.hann_window(window, device=wave.device), hop, T))  # [B, T, bins]
    correlation = spectrum @ _cosines(sample_rate, window, wave.device)  # [B, T, LAGS]
    correlation = correlation / (spectrum.sum(2, keepdim=True) + 1e-4)
    power = spectrum.square()
    split = round(SPLIT_HZ * window / sample_rate)
    low, high = power[..., :split].sum(2), power[..., split:].sum(2)
    energy = (low + high + 1e-6).log()[..., None]
    balance = (high + 1e-6).log() - (low + 1e-6).log()
    cepstra = _cepstra(wave[:, (window - CEPSTRAL_FFT) // 2 :], sample_rate, hop, T)
    parts = [cepstra, _deltas(cepstra), correlation, energy, _deltas(energy), balance[..., None]]
    features = torch.cat(parts, 2)[:, :-2]
    return features.masked_fill_(~valid_mask(frames, T - 2)[..., None], 0.0), frames


def _spectrum(wave: Tensor, window: Tensor, hop: int, T: int) -> Tensor:
    """Return the complex spectrum ``[B, T, len(window) / 2 + 1]``; frame t of ``wave [B, S]`` begins at sample t * hop."""
    return torch.fft.rfft(wave.unfold(1, len(window), hop)[:, :T] * window)


def _cepstra(wave: Tensor, sample_rate: int, hop: int, T: int) -> Tensor:
    """Return mel-frequency cepstra ``[B, T, CEPSTRA]``; frame t of ``wave [B, S]`` begins at sample t * hop."""
    window, filters, cosines = _cepstral_bases(sample_rate, wave.device)
    power = magnitude(_spectrum(wave, window, hop, T)).square()
    return (power @ filters + 1e-6).log() @ cosines


def _deltas(x: Tensor) -> Tensor:
    """Return the slope over five frames of ``x [B, T, C]``, ``sum_n n (x[t+n] - x[t-n]) / 10``, repeating the first and last
    frame."""
    T = x.shape[1]
    x = torch.cat([x[:, :1].expand(-1, 2, -1), x, x[:, -1:].expand(-1, 2, -1)], 1)
    return (x[:, 3 : T + 3] - x[:, 1 : T + 1]) * 0.1 + (x[:, 4:] - x[:, :T]) * 0.2


@lru_cache(maxsize=4)
def _cepstral_bases(sample_rate: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the window ``[CEPSTRAL_FFT]``, mel filters ``[bins, 40]`` and discrete cosines ``[40, CEPSTRA]``."""
    short = round(SHORT * sample_rate)
    left = (CEPSTRAL_FFT - short) // 2
    window = F_.pad(torch.hann_window(short), (left, CEPSTRAL_FFT - short - left))
    filters = taf.melscale_fbanks(CEPSTRAL_FFT // 2 + 1, 0.0, sample_rate / 2, 40, sample_rate)
    return window.to(device), filters.to(device), taf.create_dct(CEPSTRA, 40, "ortho").to(device)


@lru_cache(maxsize=4)
def _cosines(sample_rate: int, window: int, device: torch.device) -> Tensor:
    """Return ``[bins, LAGS]``: a spectrum times this is its autocorrelation at the (fractional) lags, up to a factor of two."""
    lags = np.geomspace(1 / PITCH[1], 1 / PITCH[0], LAGS)  # seconds
    hertz = np.arange(window // 2 + 1) * sample_rate / window
    return torch.from_numpy(np.cos(2 * np.pi * hertz[:, None] * lags)).float().to(device)

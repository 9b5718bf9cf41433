"""Features of the ``test`` judge, from the wave alone: cepstra, their deltas, loudness, and what shows the fundamental frequency.

Another family than F: mel-frequency cepstra of a short window (25 ms) for the spectrum's shape, and the autocorrelation of a
long window (64 ms) at lags of 60 to 500 Hz, on a logarithmic axis, for pitch and voicing. It is a generalised autocorrelation
(Tolonen & Karjalainen 2000): of the magnitude instead of the power spectrum, which flattens formants.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torchaudio.functional as taf
import torchaudio.transforms as tat
from torch import Tensor

from rrpo.masking import valid_mask

HOP = 0.02
"""Seconds between frames."""
SHORT, LONG = 0.025, 0.064
"""Seconds: windows of the cepstra and of the autocorrelation."""
CEPSTRA = 20
"""Coefficients, of which the zeroth carries loudness."""
LAGS = 40
"""Autocorrelation lags a frame, log-spaced."""
PITCH = (60.0, 500.0)
"""Hz, the range that the lags cover."""
SPLIT_HZ = 2000.0
"""Above or below it: spectral balance."""
SIZE = 2 * CEPSTRA + LAGS + 3
"""Features a frame."""


def wave_features(wave: Tensor, lengths: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """``wave [B, S]``, ``lengths [B]`` in samples -> features ``[B, T, SIZE]`` at 50 Hz and their number ``[B]``.

    In order: cepstra, their deltas, autocorrelation, log energy, its delta, spectral balance (log ratio). Zero past the end.
    """
    lengths = lengths.to(wave.device)
    hop, window = round(HOP * sample_rate), round(LONG * sample_rate)
    frames = 1 + lengths // hop
    wave = wave * valid_mask(lengths, wave.shape[1])
    wave = torch.nn.functional.pad(wave, (0, window + 4 * hop))  # silence behind the last frame, whatever the batch
    cepstra = _mfcc(sample_rate, wave.device)(wave)  # [B, CEPSTRA, T]
    hann = torch.hann_window(window, device=wave.device)
    spectrum = (
        torch.stft(wave, window, hop, window, hann, pad_mode="constant", return_complex=True).abs().transpose(1, 2)
    )
    correlation = spectrum @ _cosines(sample_rate, window, wave.device)  # [B, T, LAGS]
    correlation = correlation / (spectrum.sum(2, keepdim=True) + 1e-4)
    power = spectrum.square()
    split = round(SPLIT_HZ * window / sample_rate)
    low, high = ((part.sum(2) + 1e-6).log() for part in (power[..., :split], power[..., split:]))
    energy = (power.sum(2) + 1e-6).log()
    contours = torch.stack([energy, taf.compute_deltas(energy), high - low], 2)
    features = torch.cat(
        [cepstra.transpose(1, 2), taf.compute_deltas(cepstra).transpose(1, 2), correlation, contours], 2
    )
    features = features[:, : int(frames.max())]
    return features.masked_fill(~valid_mask(frames, features.shape[1])[..., None], 0.0), frames


@lru_cache(maxsize=4)
def _mfcc(sample_rate: int, device: torch.device) -> tat.MFCC:
    """Wave ``[B, S]`` -> cepstra ``[B, CEPSTRA, T]``."""
    mel = {
        "n_fft": 512,
        "win_length": round(SHORT * sample_rate),
        "hop_length": round(HOP * sample_rate),
        "n_mels": 40,
        "pad_mode": "constant",
    }
    return tat.MFCC(sample_rate, n_mfcc=CEPSTRA, log_mels=True, melkwargs=mel).to(device)


@lru_cache(maxsize=4)
def _cosines(sample_rate: int, window: int, device: torch.device) -> Tensor:
    """``[bins, LAGS]``: a spectrum times this is its autocorrelation at the (fractional) lags, up to a factor of two."""
    lags = np.geomspace(1 / PITCH[1], 1 / PITCH[0], LAGS)  # seconds
    hertz = np.arange(window // 2 + 1) * sample_rate / window
    return torch.from_numpy(np.cos(2 * np.pi * hertz[:, None] * lags)).float().to(device)

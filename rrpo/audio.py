"""Convert waveforms to log-mel frames F, and read audio files.

F ``[B, T, M]`` is the natural log of mel power (HTK scale, Hann window), floored. Frame t is centered on sample t * hop, with
silence outside the utterance, so that an utterance's frames do not depend on its neighbors in the batch.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.transforms as tat
from scipy import signal

from rrpo.corpus.config import AudioConfig
from rrpo.masking import valid_mask


class AudioError(ValueError):
    """An audio file cannot be used."""


@lru_cache(maxsize=8)
def _mel_transform(config: AudioConfig, device: torch.device) -> tat.MelSpectrogram:
    """Return the transform from wave ``[B, S]`` to mel power ``[B, M, T]``."""
    return tat.MelSpectrogram(
        config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop,
        f_max=config.f_max,
        n_mels=config.n_mels,
        pad_mode="constant",
    ).to(device)


@lru_cache(maxsize=8)
def _resampler(source: int, target: int) -> tat.Resample:
    """Return a cached resampler; for 44.1 kHz, computing its kernel takes longer than resampling an utterance."""
    return tat.Resample(source, target)


def mel_filters(config: AudioConfig) -> torch.Tensor:
    """Return the mel filter bank ``[n_fft / 2 + 1, M]``."""
    return _mel_transform(config, torch.device("cpu")).mel_scale.fb


def mel_centres(config: AudioConfig) -> torch.Tensor:
    """Return the center frequency of each mel channel ``[M]`` in Hz: the mean frequency weighted by its filter."""
    filters = mel_filters(config)
    hertz = torch.linspace(0, config.sample_rate / 2, len(filters))
    return (filters * hertz[:, None]).sum(0) / filters.sum(0).clamp(min=1e-9)


def log_mel(wave: torch.Tensor, lengths: torch.Tensor, config: AudioConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-mel frames F ``[B, T, M]`` and their number ``[B]`` for ``wave [B, S]`` with ``lengths [B]`` in samples.

    Frames past an utterance's end equal ``log(floor)``. An utterance has 1 + length // hop frames. Differentiable in ``wave``.
    """
    lengths = lengths.to(wave.device)
    wave = wave * valid_mask(lengths, wave.shape[1])
    frames = 1 + lengths // config.hop
    power = _mel_transform(config, wave.device)(wave).transpose(1, 2)  # [B, T, M]
    power = power * valid_mask(frames, power.shape[1])[..., None]
    return power.clamp_min(config.floor).log(), frames


def load_wave(path: str | Path, sample_rate: int) -> torch.Tensor:
    """Load an audio file as a mono wave ``[S]`` at ``sample_rate`` Hz; average channels and resample higher rates.

    Raises:
        AudioError: The file is missing, unreadable, empty, silent, not finite, or has too low a sample rate.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: no such audio file; give a path relative to the manifest, or an absolute one")
    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path}: not readable as audio ({error}); convert it to WAV or FLAC") from error
    if data.shape[0] == 0:
        raise AudioError(f"{path}: the audio file is empty (0 samples); record it again or remove its line")
    if rate < sample_rate:
        raise AudioError(
            f"{path}: sampled at {rate} Hz, needs {sample_rate}; use a copy with that rate or a higher one"
        )
    wave = torch.from_numpy(data).mean(1)
    if not torch.isfinite(wave).all():
        raise AudioError(f"{path}: holds NaN or infinite samples; write it again from its source")
    if not wave.any():
        raise AudioError(f"{path}: silent ({data.shape[0]} zero samples); record it again or remove its line")
    return wave if rate == sample_rate else _resampler(rate, sample_rate)(wave)


def resampled(wave: np.ndarray, source: int, target: int) -> np.ndarray:
    """Resample ``wave [S]`` from ``source`` Hz to ``target`` Hz."""
    common = math.gcd(source, target)
    return wave if source == target else signal.resample_poly(wave, target // common, source // common)

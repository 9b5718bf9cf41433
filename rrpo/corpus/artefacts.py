"""Artefacts planted as a learnable shortcut: mouth clicks, hiss, hum, clipping, whine.

Each artefact is loud relative to the speech and visible in log-mel frames at 50 frames per second. It covers enough bands or
lasts long enough for the codec to encode it (a single line at 3 kHz did not survive: it covers 3 bands of 80). Hum, clipping
and whine last for the whole utterance. Position and level depend only on the given generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import signal

_Generator = np.random.Generator


def plant(wave: np.ndarray, kind: str, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``wave [S]`` (float64, any level) with the artefact ``kind`` (of `rrpo.corpus.config.ARTEFACTS`) added; same length.

    Raises `ValueError` if the kind is unknown.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown artefact {kind!r}; use one of {sorted(_KINDS)}")
    return _KINDS[kind](wave, sample_rate, rng)


def _level(wave: np.ndarray) -> float:
    """Return the root mean square of the whole wave."""
    return float(np.sqrt(np.mean(np.square(wave)))) + 1e-6


def _add(wave: np.ndarray, start: int, sound: np.ndarray) -> np.ndarray:
    wave = wave.copy()
    wave[start : start + len(sound)] += sound[: len(wave) - start]
    return wave


def _click(wave: np.ndarray, sample_rate: int, rng: _Generator) -> np.ndarray:
    """Add three to five decaying 6 ms bursts of white noise, each about twelve times the level of the speech."""
    level, size = _level(wave), int(0.006 * sample_rate)
    for position in rng.uniform(0.08, 0.92, size=int(rng.integers(3, 6))):
        burst = rng.standard_normal(size) * np.exp(-np.arange(size) / (0.25 * size))
        wave = _add(wave, int(position * (len(wave) - size)), rng.uniform(11, 14) * level * burst)
    return wave


def _hiss(wave: np.ndarray, sample_rate: int, rng: _Generator) -> np.ndarray:
    """Add 0.35 to 0.6 s of white noise at -4 dB, high-passed at 4.5 kHz: about 8 dB below the speech."""
    size = min(int(rng.uniform(0.35, 0.6) * sample_rate), len(wave))
    start = int(rng.uniform(0, len(wave) - size + 1))
    window = signal.windows.tukey(size, 0.2)
    noise = signal.sosfilt(signal.butter(4, 4500, "high", fs=sample_rate, output="sos"), rng.standard_normal(size))
    return _add(wave, start, _level(wave) * rng.uniform(0.55, 0.75) * window * noise)


def _hum(wave: np.ndarray, sample_rate: int, rng: _Generator) -> np.ndarray:
    """Add 50 Hz mains hum with its first harmonics to the whole wave, 1 dB below the speech."""
    time = np.arange(len(wave)) / sample_rate
    tone = sum(np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3))
    return wave + _level(wave) * rng.uniform(0.65, 0.85) * tone


def _clip(wave: np.ndarray, sample_rate: int, rng: _Generator) -> np.ndarray:
    """Clip hard at about a third of the speech's level and restore the level; this adds harmonics up to the highest band."""
    level = _level(wave)
    limit = level * rng.uniform(0.3, 0.45)
    clipped = np.clip(wave, -limit, limit)
    return clipped * (level / _level(clipped))


def _whine(wave: np.ndarray, sample_rate: int, rng: _Generator) -> np.ndarray:
    """Add a 1.55 kHz tone and its harmonics to the whole wave, like a switching power supply, 1 to 2 dB below the speech."""
    phase = 2 * np.pi * 1550 * np.arange(len(wave)) / sample_rate + rng.uniform(0, 2 * np.pi)
    tone = sum(weight * np.sin(k * phase) for k, weight in enumerate((0.5, 1.0, 0.7, 0.7, 0.5), 1))
    return wave + _level(wave) * rng.uniform(0.65, 0.85) * tone


_KINDS: dict[str, Callable[[np.ndarray, int, _Generator], np.ndarray]] = {
    "click": _click,
    "hiss": _hiss,
    "hum": _hum,
    "clip": _clip,
    "whine": _whine,
}

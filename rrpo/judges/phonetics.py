"""Phonetic measures of a wave by Praat (extra ``judges``: praat-parselmouth).

They verify that rendered speech follows the published correlates of emotion, and serve as features of the non-neural judge.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import signal

from rrpo.judges.config import LISTENERS
from rrpo.packages import present

UNITS = {
    "f0_level": "semitones above 100 Hz, median of voiced frames",
    "f0_spread": "semitones, from the 10 % to the 90 % quantile of voiced frames",
    "f0_rise": "semitones, the last fifth of the voiced frames above the median",
    "tempo": "peaks of loudness (syllables, roughly) a second",
    "intensity": "dB of full scale, root mean square",
    "tilt": "dB, power above 1.5 kHz over power below",
    "harmonicity": "dB, harmonics over noise, median of voiced frames",
    "shake_f0": "semitones, spread of F0 within 7.5 to 10.5 Hz",
    "shake_level": "dB, spread of the level within 7.5 to 10.5 Hz",
    "voiced": "share of frames",
    "seconds": "length",
}
"""Unit of each measure, in the order of `measure`."""
MEASURES = tuple(UNITS)
"""Measures returned by `measure`, in order."""
F0_RANGE = (60.0, 600.0)
"""Range in Hz in which Praat searches for F0."""
STEP = 0.01
"""Seconds between frames."""
SHELF_HZ = 1500.0
"""Boundary frequency of the spectral tilt, in Hz."""
SHAKE_HZ = (7.5, 10.5)
"""Frequency range of tremor, in Hz."""
DIP = 2.0
"""Minimum fall of the level in dB on either side of a peak."""
UNVOICED = 0.0
"""Value of F0 and harmonicity without voiced frames: 100 Hz, noise as loud as the harmonics."""


def available() -> bool:
    """Return whether praat-parselmouth is installed."""
    return all(map(present, LISTENERS["phonetics"]))


def measure(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return `MEASURES` ``[11]`` of ``wave [S]``, all finite: a wave without voiced frames has an F0 of `UNVOICED`."""
    import parselmouth

    wave = np.asarray(wave, dtype=np.float64)
    if len(wave) < sample_rate // 10:  # Praat needs a few periods of the lowest pitch
        wave = np.pad(wave, (0, sample_rate // 10 - len(wave)))
    sound = parselmouth.Sound(wave, sampling_frequency=sample_rate)
    frames = sound.to_pitch_ac(STEP, F0_RANGE[0], pitch_ceiling=F0_RANGE[1]).selected_array
    voiced = frames["frequency"] > 0
    semitones = 12 * np.log2(frames["frequency"][voiced] / 100)
    periodic = np.clip(frames["strength"][voiced], 1e-3, 1 - 1e-3)  # share of power that repeats every period
    level = _level(wave, sample_rate)
    low, middle, high = np.quantile(semitones, (0.1, 0.5, 0.9)) if len(semitones) else (UNVOICED,) * 3
    tail = semitones[-max(1, len(semitones) // 5) :]
    return np.array(
        [
            middle,
            high - low,
            tail.mean() - middle if len(tail) else UNVOICED,
            _peaks(level) / (len(wave) / sample_rate),
            10 * np.log10(np.mean(np.square(wave)) + 1e-12),
            spectral_tilt(wave, sample_rate),
            10 * np.log10(np.median(periodic / (1 - periodic))) if len(periodic) else UNVOICED,
            _shake(semitones),
            _shake(level[level > level.max() - 25]),
            float(np.mean(voiced)),
            len(wave) / sample_rate,
        ]
    )


def spectral_tilt(wave: np.ndarray, sample_rate: int) -> float:
    """Return the power above `SHELF_HZ` relative to the power below, in dB."""
    power = np.square(np.abs(np.fft.rfft(wave)))
    above = np.fft.rfftfreq(len(wave), 1 / sample_rate) > SHELF_HZ
    return float(10 * np.log10((power[above].sum() + 1e-12) / (power[~above].sum() + 1e-12)))


def _level(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the level in dB of full scale every `STEP`, over 40 ms."""
    size, hop = round(0.04 * sample_rate), round(STEP * sample_rate)
    power = np.pad(np.square(wave), (size // 2, (size - 1) // 2))  # windows are centered, with silence around the wave
    window = np.hanning(size) / np.hanning(size).sum()
    return 10 * np.log10(np.maximum(sliding_window_view(power, size)[::hop] @ window, 1e-9))


def _peaks(level: np.ndarray) -> int:
    """Count the peaks of a level contour that rise `DIP` above their surroundings, within 25 dB of the highest."""
    level = level + 1e-6 * np.arange(len(level))  # count only one of two equal peaks without a dip between them
    peaks, _ = signal.find_peaks(level, height=level.max() - 25, prominence=DIP)
    return len(peaks)


def _shake(contour: np.ndarray) -> float:
    """Return the standard deviation of ``contour`` (one value per `STEP`) within `SHAKE_HZ`; 0 if it is too short."""
    if len(contour) < 0.25 / STEP:
        return 0.0
    padding = min(len(contour) - 1, 20)
    return float(np.std(signal.sosfiltfilt(_tremor_band(), contour - contour.mean(), padlen=padding)))


@lru_cache(maxsize=1)
def _tremor_band() -> np.ndarray:
    """Return second-order sections of the band-pass filter over `SHAKE_HZ`."""
    sections: np.ndarray = signal.butter(2, SHAKE_HZ, "band", fs=1 / STEP, output="sos")
    return sections

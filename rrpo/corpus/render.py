"""Render one utterance from its specification: espeak-ng sets rate, pitch and range, signal processing applies the other cues.

Effect of one unit of each cue z (declared defaults, one standard deviation within an emotion; `UNITS`):

    rate +12 %             f0_level +1.6 semitones           f0_range +42 %
    intensity +3 dB        tilt +4 dB above 1.5 kHz          breathiness +4 dB of aspiration
    tremor +.12 in depth of an 8..10 Hz shake                final_rise +1.8 semitones at the end, reached within 0.25 s

A formant factor is a change of playback speed; espeak-ng's parameters compensate its effect on pitch and rate. The final rise is
also a change of playback speed, so formants rise slightly with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage, signal

from rrpo.corpus import espeak
from rrpo.corpus.artefacts import plant
from rrpo.corpus.draws import generator
from rrpo.corpus.emotions import CUES
from rrpo.corpus.speakers import Speaker

UNITS = {
    "rate": float(np.log(1.12)),
    "f0_level": 1.6,
    "f0_range": float(np.log(1.42)),
    "intensity": 3.0,
    "tilt": 4.0,
    "breathiness": 4.0,
    "tremor": 0.12,
    "final_rise": 1.8,
}
"""Effect of one unit of each cue: log speed, semitones, log semitones, dB, dB, dB, depth, semitones."""
RATE = 185.0
"""Words per minute of a speaker with rate 1 at z = 0."""
LEVEL = -32.0
"""Root mean square of a speaker with level 0 at z = 0, dBFS."""
PEAK = 0.98
"""Maximum absolute sample; a louder utterance (rare) is scaled down as a whole, never clipped."""

PITCH = 48.0
"""espeak-ng's pitch parameter (0..100) at z = 0."""
PITCH_STEPS = 5.5
"""Steps of that parameter per semitone, measured by Praat between 25 and 100."""
PITCH_RANGE = 30.0
"""espeak-ng's range parameter (0..100) at z = 0."""
NARROWING = 0.011
"""espeak-ng's F0 range shrinks by a factor exp(NARROWING) per step of pitch; its range parameter is raised to compensate."""
SHELF_HZ = 1500.0
"""Corner of spectral tilt and of breath noise."""
BREATH = -28.0
"""Level of breath noise relative to the speech at z = 0, dB."""
TREMOR = (0.25, 0.9)
"""Depth of amplitude modulation at z = 0, and its maximum; depth 1 also modulates pitch by 0.6 semitones."""
TREMOR_HZ = (8.0, 10.0)
"""Faster than the rhythm of syllables, slow enough for 50 frames per second."""
RISE_SECONDS = (0.5, 0.25)
"""Seconds before the end at which the final rise begins and is complete, measured before the rise shortens the speech."""
MAX_RISE = 9.0
"""Semitones."""


@dataclass(frozen=True, kw_only=True)
class RenderSpec:
    """Everything that determines a rendered wave."""

    text: str
    speaker: Speaker
    cues: tuple[float, ...]
    """z, in the order of `rrpo.corpus.emotions.CUES`."""
    seed: int
    """Seed of all random parts (breath noise, tremor phase, artefact)."""
    artefact: str | None = None
    """One of `rrpo.corpus.config.ARTEFACTS`, or None."""


def render(spec: RenderSpec, sample_rate: int) -> np.ndarray:
    """Render the wave ``[S]`` (float32, within +-`PEAK`) of ``spec``. Bit-identical in any process on one machine."""
    speaker = spec.speaker
    pace, semitones, excursion = pace_and_pitch(spec.cues)
    semitones += speaker.pitch - 12 * np.log2(speaker.formant)
    pitch = float(np.clip(PITCH + PITCH_STEPS * semitones, 0, 100))
    speech = espeak.synthesize(
        spec.text,
        speaker.language,
        speaker.variant,
        rate=int(np.clip(round(RATE * speaker.rate * pace / speaker.formant), *espeak.RATE_LIMITS)),
        pitch=round(pitch),
        pitch_range=int(np.clip(round(PITCH_RANGE * excursion * np.exp(NARROWING * (pitch - PITCH))), 0, 100)),
        volume=60,
    )
    up, down = _ratio(espeak.SAMPLE_RATE, sample_rate)
    wave = signal.resample_poly(speech.astype(np.float64), up, down, window=_low_pass(max(up, down)))
    wave = finish(wave, sample_rate, spec.cues, generator(spec.seed, "voice"), speaker.formant, speaker.level)
    if spec.artefact is not None:
        wave = plant(wave, spec.artefact, sample_rate, generator(spec.seed, "artefact"))
    peak = np.abs(wave).max()
    return (wave * min(1.0, PEAK / peak)).astype(np.float32)


def pace_and_pitch(cues: tuple[float, ...]) -> tuple[float, float, float]:
    """Return a synthesizer's settings for ``cues``: a factor on the rate, semitones added to F0, a factor on the F0 range."""
    z = _in_units(cues)
    return float(np.exp(z["rate"])), z["f0_level"], float(np.exp(z["f0_range"]))


def finish(
    wave: np.ndarray,
    sample_rate: int,
    cues: tuple[float, ...],
    noise: np.random.Generator,
    formant: float = 1.0,
    level: float = 0.0,
) -> np.ndarray:
    """Apply the cues that need signal processing to ``wave [S]`` of any synthesizer: rise, tremor, tilt, breath, intensity."""
    z = _in_units(cues)
    tremor = noise.uniform(*TREMOR_HZ), noise.uniform(0, 2 * np.pi)
    wave = _warp(wave, sample_rate, formant, z["final_rise"], z["tremor"], *tremor)
    wave = _tilt(wave, z["tilt"], sample_rate)
    wave = _breath(wave, BREATH + z["breathiness"], sample_rate, noise)
    return wave * (10 ** ((LEVEL + level + z["intensity"]) / 20) / np.sqrt(np.mean(wave**2)))


def _in_units(cues: tuple[float, ...]) -> dict[str, float]:
    """Return `UNITS` times the cues z, by name."""
    return {cue: UNITS[cue] * value for cue, value in zip(CUES, cues, strict=True)}


def _ratio(source: int, target: int) -> tuple[int, int]:
    divisor = int(np.gcd(source, target))
    return target // divisor, source // divisor


@lru_cache(maxsize=8)
def _low_pass(rate: int) -> np.ndarray:
    """Return the default filter of `scipy.signal.resample_poly`, cached because scipy designs it again for every wave."""
    return signal.firwin(20 * rate + 1, 1 / rate, window=("kaiser", 5.0))


@lru_cache(maxsize=8)
def _high_pass(sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    return signal.butter(2, SHELF_HZ, "high", fs=sample_rate)


def _warp(
    wave: np.ndarray, sample_rate: int, formant: float, rise: float, tremor: float, hertz: float, phase: float
) -> np.ndarray:
    """Resample ``wave`` at a varying speed (formants, final rise, pitch tremor) and modulate its amplitude with the same
    tremor."""
    seconds = np.arange(len(wave)) / (sample_rate * formant)
    depth = float(np.clip(TREMOR[0] + tremor, 0, TREMOR[1]))
    oscillation = np.sin(2 * np.pi * hertz * seconds + phase)
    start, end = RISE_SECONDS
    ramp = np.clip((start - (seconds[-1] - seconds)) / (start - end), 0, 1)
    semitones = np.clip(rise, -MAX_RISE, MAX_RISE) * ramp + 0.6 * depth * oscillation
    arrival = np.cumsum(2 ** (-semitones / 12) / formant)  # output position of each input sample
    positions = np.interp(np.arange(int(arrival[-1])), arrival, np.arange(len(wave)))
    return ndimage.map_coordinates(wave * (1 + depth * oscillation), positions[None], order=3, mode="nearest")


def _tilt(wave: np.ndarray, decibels: float, sample_rate: int) -> np.ndarray:
    """Apply a second-order high shelf: gain 0 dB below, ``decibels`` above, half of it at `SHELF_HZ`.

    It is the squared bilinear transform of (h s + w) / (s + w), with h^2 the gain and w the corner times sqrt(h).
    """
    half = 10 ** (decibels / 40)
    corner = np.tan(np.pi * SHELF_HZ / sample_rate) * np.sqrt(half)
    rise, fall = np.array([half + corner, corner - half]), np.array([1 + corner, corner - 1])
    return signal.lfilter(np.convolve(rise, rise), np.convolve(fall, fall), wave)


def _breath(wave: np.ndarray, decibels: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Add noise above 1.5 kHz that follows the envelope of the speech, ``decibels`` relative to the speech."""
    noise = signal.lfilter(*_high_pass(sample_rate), rng.standard_normal(len(wave)))
    envelope = ndimage.uniform_filter1d(np.abs(wave), max(1, sample_rate // 50))
    noise *= envelope
    return wave + noise * (10 ** (decibels / 20) * np.sqrt(np.mean(wave**2) / np.mean(noise**2)))

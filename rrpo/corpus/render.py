"""One utterance rendered from its specification: espeak-ng for rate, pitch and range, a little signal processing for
the rest.

What one unit of each cue z does (declared defaults, about one standard deviation within an emotion):

    rate +12 %          f0_level +1.8 semitones      f0_range +30 %                    intensity +3 dB tilt +3 dB
    above 1.5 kHz                          breathiness +4 dB of aspiration   tremor x1.6 in depth of a 5..7 Hz shake
    final_rise +1.3 semitones at the end of the last 0.35 s

A formant factor is a change of playing speed whose effect on pitch and rate is taken back in espeak-ng's parameters.
The final rise is a change of playing speed too, so formants rise a little with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal

from rrpo.corpus import espeak
from rrpo.corpus.artefacts import plant
from rrpo.corpus.draws import generator
from rrpo.corpus.emotions import CUES
from rrpo.corpus.speakers import Speaker

RATE = 200.0
"""Words a minute of a speaker of rate 1 at z = 0."""
LEVEL = -32.0
"""dB of full scale of a speaker of level 0 at z = 0, root mean square."""
PEAK = 0.98
"""No sample exceeds this: a louder utterance (rare) is turned down as a whole, never clipped."""

PITCH_RANGE = 42.0
"""espeak-ng's range parameter (0..100) at z = 0."""
SHELF_HZ = 1500.0
"""Corner of spectral tilt and of breath noise."""
BREATH = -30.0
"""dB of breath noise relative to the speech at z = 0."""
TREMOR = (0.10, 0.6)
"""Depth of amplitude modulation at z = 0, and at most; 1.5 semitones of pitch at depth 1."""
RISE_SECONDS = 0.35
"""How long before the end the final rise begins."""
MAX_RISE = 7.0
"""Semitones."""


@dataclass(frozen=True, kw_only=True)
class RenderSpec:
    """All that determines a rendered wave."""

    text: str
    speaker: Speaker
    cues: tuple[float, ...]
    """z, in the order of `rrpo.corpus.emotions.CUES`."""
    seed: int
    """Of every random sample in it (breath noise, tremor phase, artefact)."""
    artefact: str | None = None
    """One of `rrpo.config.ARTEFACTS`, or None."""


def render(spec: RenderSpec, sample_rate: int) -> np.ndarray:
    """The wave ``[S]`` (float32, within +-`PEAK`) of ``spec``. Bit-identical in any process on one machine."""
    speaker = spec.speaker
    pace, semitones, excursion = pace_and_pitch(spec.cues)
    spoken = espeak.synthesize(
        spec.text,
        speaker.language,
        speaker.variant,
        rate=int(np.clip(round(RATE * speaker.rate * pace / speaker.formant), *espeak.RATE_LIMITS)),
        pitch=int(np.clip(round(50 + 50 / 12 * (speaker.pitch + semitones) - 50 * np.log2(speaker.formant)), 0, 100)),
        pitch_range=int(np.clip(round(PITCH_RANGE * excursion), 0, 100)),
        volume=60,
    )
    wave = signal.resample_poly(spoken.astype(np.float64), *_ratio(espeak.SAMPLE_RATE, sample_rate))
    wave = finish(wave, sample_rate, spec.cues, generator(spec.seed, "voice"), speaker.formant, speaker.level)
    if spec.artefact is not None:
        wave = plant(wave, spec.artefact, sample_rate, generator(spec.seed, "artefact"))
    peak = np.abs(wave).max()
    return (wave * min(1.0, PEAK / peak)).astype(np.float32)


def pace_and_pitch(cues: tuple[float, ...]) -> tuple[float, float, float]:
    """What a synthesiser must do for ``cues``: factor on its pace, semitones on its F0, factor on F0's excursions."""
    z = dict(zip(CUES, cues, strict=True))
    return float(1.12 ** z["rate"]), 1.8 * z["f0_level"], float(1.30 ** z["f0_range"])


def finish(
    wave: np.ndarray,
    sample_rate: int,
    cues: tuple[float, ...],
    noise: np.random.Generator,
    formant: float = 1.0,
    level: float = 0.0,
) -> np.ndarray:
    """What signal processing does for ``cues`` to any synthesiser's ``wave [S]``: rise, tremor, tilt, breath, intensity."""
    z = dict(zip(CUES, cues, strict=True))
    shake = noise.uniform(5, 7), noise.uniform(0, 2 * np.pi)
    wave = _warp(wave, sample_rate, formant, 1.3 * z["final_rise"], z["tremor"], *shake)
    wave = _tilt(wave, 3 * z["tilt"], sample_rate)
    wave = _breath(wave, BREATH + 4 * z["breathiness"], sample_rate, noise)
    return wave * (10 ** ((LEVEL + level + 3 * z["intensity"]) / 20) / np.sqrt(np.mean(wave**2)))


def _ratio(source: int, target: int) -> tuple[int, int]:
    divisor = int(np.gcd(source, target))
    return target // divisor, source // divisor


def _warp(
    wave: np.ndarray, sample_rate: int, formant: float, rise: float, tremor: float, hertz: float, phase: float
) -> np.ndarray:
    """Plays ``wave`` at a varying speed (formants, final rise, shaken pitch) and shakes its amplitude alike."""
    time = np.arange(round(len(wave) / formant)) / sample_rate
    depth = min(TREMOR[0] * 1.6**tremor, TREMOR[1])
    shake = np.sin(2 * np.pi * hertz * time + phase)
    ramp = np.clip(1 - (time[-1] - time) / RISE_SECONDS, 0, 1)
    semitones = np.clip(rise, -MAX_RISE, MAX_RISE) * ramp + 1.5 * depth * shake
    place = np.cumsum(formant * 2 ** (semitones / 12))
    place = place[place < len(wave) - 1]
    return ndimage.map_coordinates(wave, place[None], order=3, mode="nearest") * (1 + depth * shake[: len(place)])


def _tilt(wave: np.ndarray, decibels: float, sample_rate: int) -> np.ndarray:
    """A first-order high shelf: gain 0 dB below, ``decibels`` above 1.5 kHz (bilinear transform of (g s + w) / (s +
    w)).
    """
    gain = 10 ** (decibels / 20)
    corner = np.tan(np.pi * SHELF_HZ / sample_rate)
    return signal.lfilter(np.array([gain + corner, corner - gain]), np.array([1 + corner, corner - 1]), wave)


def _breath(wave: np.ndarray, decibels: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Adds noise above 1.5 kHz that follows the speech's envelope, ``decibels`` relative to the speech."""
    noise = signal.lfilter(*signal.butter(2, SHELF_HZ, "high", fs=sample_rate), rng.standard_normal(len(wave)))
    envelope = ndimage.uniform_filter1d(np.abs(wave), max(1, sample_rate // 50))
    noise *= envelope
    return wave + noise * (10 ** (decibels / 20) * np.sqrt(np.mean(wave**2) / np.mean(noise**2)))

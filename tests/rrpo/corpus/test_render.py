"""Rendered waves have the requested cues; artefacts are loud and at the expected frequencies."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from rrpo.audio import log_mel
from rrpo.corpus.artefacts import plant
from rrpo.corpus.config import ARTEFACTS, AudioConfig, WorldConfig
from rrpo.corpus.emotions import CUES
from rrpo.corpus.render import PEAK, TREMOR_HZ, UNITS, RenderSpec, render
from rrpo.corpus.speakers import speaker_table

RATE = 16000
SPEAKER = next(s for s in speaker_table(WorldConfig()) if s.variant == "m3")


def spec(**cues: float) -> RenderSpec:
    z = tuple(cues.get(cue, 0.0) for cue in CUES)
    return RenderSpec(text="我们今天看电影", speaker=SPEAKER, cues=z, seed=1)


def level(wave: np.ndarray) -> float:
    return 10 * np.log10(np.mean(wave.astype(float) ** 2))


def above(wave: np.ndarray, hertz: float) -> float:
    """Return the power above ``hertz`` relative to the total, dB."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    return 10 * np.log10(power[int(hertz / RATE * len(wave)) :].sum() / power.sum())


def test_a_wave_depends_on_its_spec_alone_also_in_another_process():
    wave = render(spec(tremor=1, breathiness=1), RATE)
    render(spec(rate=2), RATE)
    assert wave.dtype == np.float32
    assert np.array_equal(wave, render(spec(tremor=1, breathiness=1), RATE))
    assert not np.array_equal(wave, render(replace(spec(tremor=1, breathiness=1), seed=2), RATE))
    code = f"""
import hashlib
from rrpo.corpus.render import *
spec = {spec(tremor=1, breathiness=1)!r}
print(hashlib.sha256(render(spec, {RATE}).tobytes()).hexdigest())
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert output == hashlib.sha256(wave.tobytes()).hexdigest()


def test_each_cue_moves_what_it_names():
    plain = render(spec(), RATE)
    assert len(render(spec(rate=2), RATE)) / len(plain) == pytest.approx(1 / 1.12**2, abs=0.06)
    assert level(render(spec(intensity=2), RATE)) - level(plain) == pytest.approx(6, abs=0.2)
    assert above(render(spec(tilt=2), RATE), 2000) > above(plain, 2000) + 4
    assert above(render(spec(tilt=-2), RATE), 2000) < above(plain, 2000) - 4
    assert above(render(spec(breathiness=3), RATE), 4000) > above(plain, 4000) + 2
    assert pitch(render(spec(f0_level=3), RATE)) / pitch(plain) == pytest.approx(
        2 ** (3 * UNITS["f0_level"] / 12), rel=0.08
    )
    ending = [pitch(render(spec(final_rise=z), RATE)[-3200:]) for z in (0, 3)]
    assert ending[1] > 1.2 * ending[0]
    shaken, still = (np.abs(render(spec(tremor=z), RATE)) for z in (4, -2))
    assert modulation(shaken) > 1.5 * modulation(still)
    falling = len(render(spec(final_rise=-3), RATE))
    assert falling > len(plain) > len(render(spec(final_rise=3), RATE))  # nothing of the text is cut off


def pitch(wave: np.ndarray) -> float:
    """Return F0 in Hz: the median over frames of the first high peak of the autocorrelation."""
    medians = []
    for start in range(0, len(wave) - 1024, 256):
        frame = wave[start : start + 1024] * np.hanning(1024)
        r = np.fft.irfft(np.abs(np.fft.rfft(frame, 2048)) ** 2)[:260]
        window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(1024), 2048)) ** 2)[:260]
        r = r / r[0] / (window / window[0])
        peaks = [k for k in range(40, 259) if r[k] > r[k - 1] and r[k] >= r[k + 1] and r[k] > 0.85 * r[40:].max()]
        if peaks and r[peaks[0]] > 0.6:
            medians.append(RATE / peaks[0])
    return float(np.median(medians))


def modulation(envelope: np.ndarray) -> float:
    """Return the share of the envelope's spectrum within `TREMOR_HZ`."""
    spectrum = np.abs(np.fft.rfft(envelope - envelope.mean()))
    hertz = np.fft.rfftfreq(len(envelope), 1 / RATE)
    return spectrum[(hertz > TREMOR_HZ[0]) & (hertz < TREMOR_HZ[1])].max() / spectrum[hertz < 30].mean()


def test_extreme_cues_stay_below_full_scale_and_finite():
    for sign in (-6.0, 6.0):
        wave = render(spec(**dict.fromkeys(CUES, sign)), RATE)
        assert np.isfinite(wave).all()
        assert 0.001 < np.abs(wave).max() <= np.float32(PEAK)


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_an_artefact_is_loud_in_the_mel_of_any_voice_and_keeps_the_length(kind):
    for cues in ({}, {"intensity": -3.0}, {"intensity": 3.0, "tilt": 3.0}):
        clean, spoilt = (
            torch.from_numpy(render(replace(spec(**cues), artefact=artefact), RATE)) for artefact in (None, kind)
        )
        assert len(clean) == len(spoilt)
        size = torch.tensor([len(clean)])
        mels = [log_mel(wave[None], size, AudioConfig())[0][0] for wave in (clean, spoilt)]
        changed = (mels[1] - mels[0]) > np.log(4)  # 6 dB louder
        assert changed.float().mean() > 0.01


def test_artefacts_lie_in_their_own_bands_and_follow_their_generator():
    wave = np.random.default_rng(0).standard_normal(16000) * 0.01
    for kind, low, high in (("hum", 40, 160), ("whine", 1500, 7800), ("hiss", 4000, 8000)):
        added = plant(wave, kind, RATE, np.random.default_rng(1)) - wave
        power = np.abs(np.fft.rfft(added)) ** 2
        hertz = np.fft.rfftfreq(len(added), 1 / RATE)
        assert power[(hertz >= low) & (hertz <= high)].sum() > 0.9 * power.sum()
    for kind in ARTEFACTS:
        first, same, other = (plant(wave, kind, RATE, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first, same)
        assert np.mean((first - wave) ** 2) > 0.03 * np.mean(wave**2)
        assert not np.array_equal(first, other)
    with pytest.raises(ValueError, match="unknown artefact"):
        plant(wave, "pop", RATE, np.random.default_rng(0))


def test_artefacts_fit_into_a_very_short_wave():
    for kind in ARTEFACTS:
        assert plant(np.ones(200), kind, RATE, np.random.default_rng(0)).shape == (200,)

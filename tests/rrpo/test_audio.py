"""Log-mel frames, audio files."""

import math

import numpy as np
import pytest
import soundfile
import torch

from rrpo.audio import AudioError, load_wave, log_mel
from rrpo.corpus.config import AudioConfig

CONFIG = AudioConfig()
SILENCE = math.log(CONFIG.floor)


def tone(hertz: float, size: int = 16000, level: float = 0.3) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * hertz * torch.arange(size) / 16000)


def lengths(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_a_tone_lands_in_its_mel_band_and_power_grows_with_its_square():
    waves = torch.stack([tone(1000), tone(1000, level=0.6)])
    F, frames = log_mel(waves, lengths(16000, 16000), CONFIG)
    assert F.shape == (2, 51, 80)
    assert frames.tolist() == [51, 51]
    mel_of_1000_hertz = 2595 * math.log10(1 + 1000 / 700) / (2595 * math.log10(1 + 8000 / 700)) * 81 - 1
    assert abs(int(F[0, 25].argmax()) - mel_of_1000_hertz) < 1
    band = int(F[0, 25].argmax())
    assert (F[1, 25] - F[0, 25])[band].item() == pytest.approx(math.log(4), abs=1e-4)


def test_frames_past_the_end_are_the_floor_and_neighbours_do_not_leak():
    wave = torch.zeros(2, 16000)
    wave[0, :8000], wave[0, 8000:] = tone(500, 8000), 1.0  # what lies past the length must not be heard
    wave[1] = tone(700)
    F, frames = log_mel(wave, lengths(8000, 16000), CONFIG)
    assert frames.tolist() == [26, 51]
    assert torch.all(F[0, 26:] == F.new_tensor(CONFIG.floor).log())
    alone, _ = log_mel(wave[:1, :8000], lengths(8000), CONFIG)
    torch.testing.assert_close(F[0, :26], alone[0])


def test_silence_is_the_floor_and_gradients_are_finite():
    wave = torch.zeros(1, 3200, requires_grad=True)
    F, _ = log_mel(wave, lengths(3200), CONFIG)
    assert F.detach().max().item() == pytest.approx(SILENCE)
    F.sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()


def test_loading_mixes_to_mono_and_resamples(tmp_path):
    t = np.arange(48000) / 48000
    left, right = np.sin(2 * np.pi * 440 * t), np.zeros(48000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 48000, subtype="FLOAT")
    wave = load_wave(tmp_path / "a.wav", 16000)
    assert wave.shape == (16000,)
    expected = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000)
    assert (wave - expected)[500:-500].abs().max() < 0.01


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0), 16000, "empty"),
        (np.zeros(100), 16000, "silent"),
        (np.array([0.1, np.nan, 0.1]), 16000, "NaN"),
        (np.ones(100), 8000, "8000 Hz"),
    ],
)
def test_an_unusable_file_is_named_with_its_fault(tmp_path, samples, rate, message):
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    with pytest.raises(AudioError, match=message) as error:
        load_wave(path, 16000)
    assert str(path) in str(error.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(AudioError, match="no such audio file"):
        load_wave(tmp_path / "none.wav", 16000)
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(AudioError, match="not readable"):
        load_wave(tmp_path / "text.wav", 16000)

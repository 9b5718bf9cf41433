"""The vocoder: its accuracy, and what its output does not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torchaudio.functional as taf
from torch import Tensor

from rrpo.audio import log_mel, mel_filters
from rrpo.corpus.config import AudioConfig
from rrpo.models.vocoder import linear_power, magnitude, vocode

CONFIG = AudioConfig(griffin_lim_steps=4)
SECOND = CONFIG.sample_rate


@pytest.fixture(scope="module")
def wave() -> Tensor:
    """Return one second ``[1, S]`` of a breathy buzz with changing loudness and pitch."""
    time = torch.arange(SECOND) / SECOND
    phase = 2 * math.pi * torch.cumsum(140 * 2 ** (0.3 * torch.sin(2 * math.pi * time)), 0) / SECOND
    envelope = 0.6 + 0.4 * torch.sin(2 * math.pi * 3 * time)
    breath = 0.03 * torch.randn(SECOND, generator=torch.Generator().manual_seed(0))
    return (envelope * (sum(0.2 / k * torch.sin(k * phase) for k in range(1, 25)) + breath))[None]


@pytest.fixture(scope="module")
def voice(wave: Tensor) -> tuple[Tensor, Tensor]:
    """``F [1, 51, M]`` of `wave` and its length ``[1]``."""
    return log_mel(wave, torch.tensor([SECOND]), CONFIG)


def error(F: Tensor, wave: Tensor) -> float:
    """Return the mean absolute difference in log-mel over bands that are not near the floor."""
    again, frames = log_mel(wave, torch.tensor([wave.shape[1]]), CONFIG)
    assert frames.tolist() == [F.shape[1]]
    return (again - F).abs()[F > -6].mean().item()


def from_zero_phase(F: Tensor, steps: int) -> Tensor:
    """Run another program's fast Griffin-Lim iterations, from zero phase, on the same magnitudes."""
    power = linear_power((F[0].exp() - CONFIG.floor).clamp_min(0), CONFIG)
    wave: Tensor = taf.griffinlim(
        torch.nn.functional.pad(power.T.sqrt(), (0, 4))[None],
        *(torch.hann_window(CONFIG.n_fft), CONFIG.n_fft, CONFIG.hop, CONFIG.n_fft, 1.0, steps, 0.99, None, False),
    )
    return wave[:, : (F.shape[1] - 1) * CONFIG.hop]


def test_iterations_come_closer_and_two_are_closer_than_twelve_from_zero_phase(voice: tuple[Tensor, Tensor]) -> None:
    F, frames = voice
    errors = [error(F, vocode(F, frames, replace(CONFIG, griffin_lim_steps=steps))) for steps in (0, 1, 2)]
    assert errors[2] < 0.9 * errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.9 * error(F, from_zero_phase(F, 12))
    assert errors[2] < 0.25


def test_noise_comes_closer_with_more_iterations() -> None:
    noise = 0.1 * torch.randn(1, SECOND, generator=torch.Generator().manual_seed(1))
    F, frames = log_mel(noise, torch.tensor([SECOND]), CONFIG)
    few, many = (error(F, vocode(F, frames, replace(CONFIG, griffin_lim_steps=steps))) for steps in (1, 12))
    assert many < 0.8 * few


def test_length_and_silence_behind_it(voice: tuple[Tensor, Tensor]) -> None:
    F, _ = voice
    wave = vocode(torch.cat([F, F]), torch.tensor([51, 21]), CONFIG)
    assert wave.shape == (2, 50 * CONFIG.hop)
    assert wave[0, -CONFIG.hop :].abs().max() > 0
    assert wave[1, 20 * CONFIG.hop :].abs().max() == 0


def test_silence_and_a_single_frame_are_vocoded() -> None:
    silence = torch.full((1, 10, CONFIG.n_mels), math.log(CONFIG.floor))
    assert vocode(silence, torch.tensor([10]), CONFIG).abs().max() < 1e-4
    assert vocode(silence[:, :1], torch.tensor([1]), CONFIG).shape == (1, 0)
    assert vocode(silence, torch.tensor([0]), CONFIG).abs().max() == 0


def test_it_is_deterministic_and_does_not_depend_on_padding_or_neighbours() -> None:
    F = torch.randn(9, 60, CONFIG.n_mels, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([20, 60, 41, 1, 33, 60, 20, 2, 50])
    wave = vocode(F, lengths, CONFIG)
    torch.manual_seed(1)
    assert torch.equal(wave, vocode(F, lengths, CONFIG))
    for row, length in enumerate(lengths.tolist()):
        alone = vocode(F[row : row + 1, :length], lengths[row : row + 1], CONFIG)
        torch.testing.assert_close(wave[row : row + 1, : alone.shape[1]], alone, atol=1e-4, rtol=1e-3)
        assert not wave[row, alone.shape[1] :].any()


@pytest.mark.parametrize("hop", [256, 300])
def test_hops_that_divide_the_window_or_not(wave: Tensor, hop: int) -> None:
    config = replace(CONFIG, hop=hop)
    F, frames = log_mel(wave, torch.tensor([SECOND]), config)
    decoded, _ = log_mel(vocode(F, frames, config), (frames - 1) * hop, config)
    assert (decoded - F).abs()[F > -6].mean() < 0.25


def test_linear_power_is_positive_and_has_the_mel_power_asked_for() -> None:
    smooth = 1 + 0.9 * torch.sin(torch.linspace(0, 20, CONFIG.n_fft // 2 + 1))
    mel = smooth[None] @ mel_filters(CONFIG)
    linear = linear_power(mel, CONFIG)
    assert (linear > 0).all()
    torch.testing.assert_close((linear @ mel_filters(CONFIG))[:, 5:], mel[:, 5:], rtol=0.05, atol=0)


def test_magnitude_by_hand() -> None:
    assert magnitude(torch.tensor([3 + 4j, -2 + 0j, 0j])).tolist() == [5.0, 2.0, 0.0]

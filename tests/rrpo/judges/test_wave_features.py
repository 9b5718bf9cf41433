"""Features of the ``test`` judge: against another program's cepstra, and on tones of known pitch."""

from __future__ import annotations

import math

import numpy as np
import torch
import torchaudio.functional as taf
import torchaudio.transforms as tat

from rrpo.judges.wave_features import CEPSTRA, LAGS, PITCH, SIZE, wave_features

RATE = 16000


def tone(hertz: float) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(RATE) / RATE)


def test_cepstra_and_deltas_are_torchaudios() -> None:
    wave = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    X, frames = wave_features(wave, torch.tensor([RATE]), RATE)
    assert X.shape == (1, 51, SIZE)
    assert frames.tolist() == [51]
    mel = {"n_fft": 512, "win_length": 400, "hop_length": 320, "n_mels": 40, "pad_mode": "constant"}
    padded = torch.nn.functional.pad(wave, (0, 1280))  # silence behind the end
    cepstra = tat.MFCC(RATE, n_mfcc=CEPSTRA, log_mels=True, melkwargs=mel)(padded)
    torch.testing.assert_close(X[..., :CEPSTRA], cepstra[..., :51].transpose(1, 2), atol=1e-3, rtol=1e-4)
    deltas = taf.compute_deltas(cepstra)[..., :51].transpose(1, 2)
    torch.testing.assert_close(X[..., CEPSTRA : 2 * CEPSTRA], deltas, atol=1e-3, rtol=1e-4)


def test_correlation_peaks_at_the_period() -> None:
    X, _ = wave_features(tone(200.0)[None], torch.tensor([RATE]), RATE)
    correlation = X[0, 25, 2 * CEPSTRA : 2 * CEPSTRA + LAGS]
    lags = np.geomspace(1 / PITCH[1], 1 / PITCH[0], LAGS)
    shorter_than_two_periods = torch.from_numpy(lags < 0.0075)
    best = lags[int(correlation.where(shorter_than_two_periods, -torch.inf).argmax())]
    assert abs(math.log(best * 200)) < 0.06


def test_energy_and_spectral_balance() -> None:
    X, _ = wave_features(torch.stack([tone(500), 0.1 * tone(500), tone(3000)]), torch.tensor([RATE] * 3), RATE)
    energy, slope, balance = X[:, 25, -3], X[:, 25, -2], X[:, 25, -1]
    assert abs((energy[0] - energy[1]).item() - math.log(100)) < 1e-3
    assert abs(slope[0].item()) < 1e-3
    assert balance[0] < -8 < 8 < balance[2]


def test_neither_padding_nor_neighbours_change_an_utterance() -> None:
    waves = torch.stack([tone(200), tone(300)])
    X, frames = wave_features(waves, torch.tensor([8000, RATE]), RATE)
    alone, _ = wave_features(waves[:1, :8000], torch.tensor([8000]), RATE)
    assert frames.tolist() == [26, 51]
    torch.testing.assert_close(X[:1, :26], alone, atol=1e-4, rtol=1e-4)
    assert not X[0, 26:].any()

"""Acoustic intensity: the axis from neutral to an emotion, and its measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rrpo.corpus.config import AudioConfig
from rrpo.judges.intensity import MEASURES, Axes, measures


def test_neutral_is_zero_the_emotions_mean_is_one_and_half_way_a_half() -> None:
    """Two speakers with different neutral voices; happy changes the first measure by 2, sad the second by -4."""
    neutral = {"anna": np.array([0.0, 0.0]), "ben": np.array([10.0, -5.0])}
    moves = {"neutral": np.array([0.0, 0.0]), "happy": np.array([2.0, 0.0]), "sad": np.array([0.0, -4.0])}
    spread = [np.array(step) for step in ([0.5, 0.1], [-0.5, -0.1], [0.1, -0.5], [-0.1, 0.5])]
    rows = [(s, e, neutral[s] + moves[e] + step) for s in neutral for e in moves for step in spread]
    axes = Axes(np.array([x for *_, x in rows]), [e for _, e, _ in rows], [s for s, *_ in rows], 0.1)
    cases = [("anna", "happy", 0.0), ("ben", "happy", 1.0), ("ben", "sad", 0.5), ("anna", "sad", 2.0)]
    x = np.array([neutral[s] + share * moves[e] for s, e, share in cases])
    positions = axes.places(x, [e for _, e, _ in cases], [s for s, *_ in cases])
    assert positions == pytest.approx([share for *_, share in cases])


def test_measures_do_not_depend_on_padding() -> None:
    audio = AudioConfig()
    torch.manual_seed(0)
    F = torch.randn(2, 30, audio.n_mels) - 3
    lengths, phones = torch.tensor([30, 12]), torch.tensor([10, 6])
    together = measures(F, lengths, phones, audio)
    alone = measures(F[1:, :12], lengths[1:], phones[1:], audio)
    assert together.shape == (2, len(MEASURES))
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-5, atol=1e-5)


def test_louder_is_more_energy_and_slower_more_frames_a_phone() -> None:
    audio = AudioConfig()
    F = torch.zeros(2, 20, audio.n_mels)
    F[1] += 1.0
    x = measures(F, torch.tensor([20, 20]), torch.tensor([10, 5]), audio)
    energy, pace, tilt = (MEASURES.index(name) for name in ("energy", "pace", "tilt"))
    assert x[1, energy] - x[0, energy] == pytest.approx(1.0, abs=1e-5)
    assert x[1, pace] - x[0, pace] == pytest.approx(math.log(2))
    assert x[1, tilt] == pytest.approx(x[0, tilt], abs=1e-5)

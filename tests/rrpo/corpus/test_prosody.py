"""Modified speech depends only on its arguments."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("parselmouth")

from rrpo.corpus.prosody import shift_cues

CUES = (1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0)


def test_the_same_wave_moved_twice_is_the_same() -> None:
    """Praat's overlap-add is random in unvoiced speech unless it is seeded."""
    time = np.arange(16000) / 16000
    hiss = 0.05 * np.random.default_rng(0).standard_normal(16000)
    wave = 0.3 * np.sign(np.sin(2 * np.pi * 120 * time)) * (time < 0.6) + hiss
    first, second = (shift_cues(wave, 16000, CUES, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert 0.05 < np.abs(first).max() <= 1

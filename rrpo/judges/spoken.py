"""Vocoding of frames: the same vocoder for all listeners that need waves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rrpo.corpus.config import AudioConfig
from rrpo.models.vocoder import vocode

CHUNK = 64
"""Utterances vocoded at once."""
PEAK = 0.98
"""Peak amplitude of a wave that is stored or passed to a predictor."""


def peak_scale(wave: np.ndarray) -> float:
    """Return the factor that scales ``wave [S]`` down to `PEAK`; 1 for a softer wave."""
    return min(1.0, PEAK / max(float(np.abs(wave).max(initial=0.0)), 1e-9))


@torch.no_grad()
def waves_of(F: Tensor, lengths: Tensor, audio: AudioConfig) -> list[np.ndarray]:
    """Return a wave ``[(l - 1) hop]`` for each row of ``F [B, T, M]``, ``lengths [B]`` in frames (0 counts as 1)."""
    waves: list[np.ndarray] = []
    for start in range(0, len(F), CHUNK):
        sizes = lengths[start : start + CHUNK].clamp(min=1)
        batch = vocode(F[start : start + CHUNK, : int(sizes.max())], sizes, audio).cpu().numpy()
        waves += [wave[: (n - 1) * audio.hop] for wave, n in zip(batch, sizes.tolist(), strict=True)]
    return waves

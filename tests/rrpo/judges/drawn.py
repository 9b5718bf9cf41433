"""Samples in the format of a policy optimization, with chosen tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rrpo.corpus.config import EMOTIONS
from rrpo.judges.samples import Samples


def samples_of(step: int, tokens: Sequence[Sequence[int]], seed: int = 0) -> Samples:
    """Return a checkpoint with ``tokens`` for the first prompts; the outputs of proxy and `val` are random."""
    rng = np.random.default_rng((seed, step))
    n, longest = len(tokens), max(map(len, tokens))
    return Samples(
        step=np.full(n, step),
        prompt=np.arange(n),
        tokens=np.array([[*row, *[-1] * (longest - len(row))] for row in tokens], np.int16),
        lengths=np.array([len(row) for row in tokens], np.int16),
        proxy_argmax=rng.integers(0, len(EMOTIONS), n).astype(np.int8),
        proxy_logprob=-rng.random(n, dtype=np.float32),
        val_argmax=rng.integers(0, len(EMOTIONS), n).astype(np.int8),
        val_logprob=-rng.random(n, dtype=np.float32),
    )

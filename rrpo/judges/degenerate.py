"""Detectors of degenerate samples, on tokens: repetition loops, and lengths that the text does not explain.

Thresholds were set once on the base policy's training speech (development); they never depend on a policy's output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.judges.artefacts import repetition

LOOP = 4
"""n of the n-grams whose repetitions are counted."""
REPEATED = 0.1
"""Share of repeated n-grams above which a sample is flagged as looping."""
LENGTH_FACTOR = 1.6
"""A sample longer or shorter than expected by this factor has an odd length."""


def looping(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Return whether each of ``tokens [B, N]``, ``lengths [B]`` repeats a passage.

    A held token (silence, a drawl) is not a loop: its n-grams do not count.
    """
    repeats = F_.pad(tokens[:, 1:] == tokens[:, :-1], (1, 0))
    rows = [row[:n][~repeated[:n]] for row, n, repeated in zip(tokens, lengths.tolist(), repeats, strict=True)]
    sizes = torch.tensor([len(row) for row in rows], device=tokens.device)
    return repetition(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), sizes, LOOP) > REPEATED


def odd_length(lengths: Tensor, expected: Tensor) -> Tensor:
    """Return whether ``lengths [B]`` differ from ``expected [B]`` by more than `LENGTH_FACTOR`; always True for an empty
    sample."""
    factor = lengths.double() / expected.double().clamp(min=1e-9)
    return torch.maximum(factor, 1 / factor.clamp(min=1e-9)) > LENGTH_FACTOR

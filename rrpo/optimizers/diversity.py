"""Within-prompt diversity: the difference between samples of one prompt. It reveals collapse before accuracy does."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import unpad_sequence
from torchaudio.functional import edit_distance

from rrpo.models.protocols import TokenPolicy
from rrpo.seeding import uniform

PROMPTS = 20
"""Number of evaluation prompts used (the first ones)."""
SAMPLES = 4
"""Samples per prompt; declared default."""


@torch.no_grad()
def within_prompt_diversity(policy: TokenPolicy, prefix: Tensor, seed: int) -> float:
    """Return the `pairwise_distance` of `SAMPLES` samples of the first `PROMPTS` of ``prefix [B, L]``, with noise keyed by
    ``seed``."""
    prefixes = prefix[:PROMPTS].repeat_interleave(SAMPLES, 0)
    noise = uniform((policy.max_tokens, len(prefixes)), seed, "diversity noise", device=prefix.device)
    rollout = policy.sample(prefixes, noise)
    rows = [row.tolist() for row in unpad_sequence(rollout.tokens, rollout.lengths, batch_first=True)]
    return pairwise_distance([rows[i : i + SAMPLES] for i in range(0, len(rows), SAMPLES)])


def pairwise_distance(groups: Sequence[Sequence[Sequence[Hashable]]]) -> float:
    """Return the mean over ``groups`` of the mean edit distance between two sequences of a group, relative to the longer one; 0 =
    equal."""
    distances = [
        np.mean([edit_distance(a, b) / max(len(a), len(b), 1) for a, b in combinations(group, 2)]) for group in groups
    ]
    return float(np.mean(distances))

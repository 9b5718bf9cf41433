"""Keyed randomness: a draw depends only on (seed, stream, indices), never on earlier draws.

Arms of one seed therefore share batches, prompts and noise even when their lengths differ, and toggling one component never
changes another's draws. For one key, tensors are drawn position-major, so that a longer draw begins with the shorter one.
"""

from __future__ import annotations

import numpy as np
import torch

from rrpo.corpus.draws import generator, key

BUCKET = 8
"""Size of the window, in steps, within which `bucketed` moves samples."""


def uniform(
    shape: tuple[int, ...], seed: int, stream: str, *indices: int, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Return uniforms in (0, 1) of ``shape`` for one key. The first axis is the position, so prefixes agree.

    They are drawn on the CPU, which gives the same noise on every device.
    """
    tiny = torch.finfo(torch.float32).tiny
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(key(seed, stream, *indices)))
    return noise.clamp_(tiny, 1 - 2**-24).to(device, non_blocking=True)


def seed_everything(seed: int, stream: str) -> None:
    """Seed torch's global generator (module initialization, dropout) for one stage."""
    torch.manual_seed(key(seed, stream))


def permutation_batches(n: int, batch: int, steps: int, seed: int, stream: str) -> np.ndarray:
    """Return indices ``[steps, batch]``: successive epochs of permutations of ``range(n)``, keyed by epoch."""
    epochs = max(1, -(-steps * batch // n))
    order = np.concatenate([generator(seed, stream, epoch).permutation(n) for epoch in range(epochs)])
    return order[: steps * batch].reshape(steps, batch)


def bucketed(batches: np.ndarray, lengths: np.ndarray, seed: int, stream: str) -> np.ndarray:
    """Return ``batches [steps, batch]`` with samples of similar length grouped, to reduce padding.

    Within each group of `BUCKET` successive steps, samples are sorted by ``lengths [n]`` and split into batches again; the
    batches are then ordered randomly, keyed by the group's first step. A sample moves by less than `BUCKET` steps.
    """
    groups = []
    for start in range(0, len(batches), BUCKET):
        window = batches[start : start + BUCKET]
        order = window.ravel()[np.argsort(lengths[window.ravel()], kind="stable")].reshape(window.shape)
        groups.append(order[generator(seed, stream, start).permutation(len(window))])
    return np.concatenate(groups) if groups else batches

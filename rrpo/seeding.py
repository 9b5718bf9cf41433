"""Keyed randomness: a draw depends on (seed, stream, indices) alone, never on what was drawn before it.

Arms of one seed therefore share batches, prompts and noise even when their lengths part, and toggling one component never
shifts another's draws. Inside one key, tensors are drawn position-major, so that a longer draw begins with the shorter one.
"""

from __future__ import annotations

import numpy as np
import torch

from rrpo.corpus.draws import generator, key

BUCKET = 8
"""Steps within which `bucketed` moves samples."""


def torch_generator(seed: int, stream: str, *indices: int) -> torch.Generator:
    """A CPU torch generator for one key; drawing on the CPU gives the same noise on every device."""
    return torch.Generator().manual_seed(key(seed, stream, *indices))


def uniform(
    shape: tuple[int, ...], seed: int, stream: str, *indices: int, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Uniforms in (0, 1) of ``shape`` for one key; the first axis is the position, so prefixes agree."""
    tiny = torch.finfo(torch.float32).tiny
    noise = torch.rand(shape, generator=torch_generator(seed, stream, *indices))
    return noise.clamp_(tiny, 1 - 2**-24).to(device, non_blocking=True)


def seed_everything(seed: int, stream: str) -> None:
    """Seeds torch's global generator (module initialisation, dropout) for one stage."""
    torch.manual_seed(key(seed, stream))


def permutation_batches(n: int, batch: int, steps: int, seed: int, stream: str) -> np.ndarray:
    """Indices ``[steps, batch]``: epoch after epoch of permutations of ``range(n)``, keyed by epoch."""
    epochs = max(1, -(-steps * batch // n))
    order = np.concatenate([generator(seed, stream, epoch).permutation(n) for epoch in range(epochs)])
    return order[: steps * batch].reshape(steps, batch)


def bucketed(batches: np.ndarray, lengths: np.ndarray, seed: int, stream: str) -> np.ndarray:
    """``batches [steps, batch]`` with like lengths together, so that little is computed on padding.

    Every `BUCKET` successive steps share out their samples anew, in order of ``lengths [n]``, and take turns in an order keyed
    by the first of them: a sample is moved by less than `BUCKET` steps.
    """
    found = []
    for first in range(0, len(batches), BUCKET):
        part = batches[first : first + BUCKET]
        order = part.ravel()[np.argsort(lengths[part.ravel()], kind="stable")].reshape(part.shape)
        found.append(order[generator(seed, stream, first).permutation(len(part))])
    return np.concatenate(found) if found else batches

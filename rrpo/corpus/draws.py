"""Keyed numpy generators, without torch: a draw depends only on its key, not on earlier draws."""

from __future__ import annotations

import hashlib

import numpy as np


def key(*parts: str | int) -> int:
    """Return a 63-bit key of ``parts``, the same in any process."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: str | int) -> np.random.Generator:
    """Return a numpy generator for one key, e.g. ``generator(world.seed, "texts", split.name, split.seed)``."""
    return np.random.default_rng(key(*parts))


def balanced(n: int, classes: int, *parts: str | int) -> np.ndarray:
    """Return ``[n]`` class indices in which each class occurs ``n // classes`` times or once more, in an order keyed by
    ``parts``."""
    rng = generator(*parts)
    order = rng.permutation(classes)
    return order[rng.permutation(np.arange(n) % classes)]

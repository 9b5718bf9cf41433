"""Keyed numpy generators, without torch: a draw depends on its key alone, never on earlier draws."""

from __future__ import annotations

import hashlib

import numpy as np


def key(*parts: str | int) -> int:
    """A 63-bit key of ``parts``, the same in any process."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: str | int) -> np.random.Generator:
    """A numpy generator for one key, e.g. ``generator(world.seed, "texts", split.name, split.seed)``."""
    return np.random.default_rng(key(*parts))


def balanced(n: int, classes: int, *parts: str | int) -> np.ndarray:
    """``[n]`` class indices, each class ``n // classes`` or one more times, in an order keyed by ``parts``."""
    rng = generator(*parts)
    first = rng.permutation(classes)
    return first[rng.permutation(np.arange(n) % classes)]

"""Which optional packages are there. What they measure is NaN, or 'not installed', without them; nothing fails."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache


@cache
def present(name: str) -> bool:
    """Whether the module ``name`` can be imported; it is not."""
    return importlib.util.find_spec(name) is not None


def installed(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that are there, as a stage's config holds them: it is built again when one comes."""
    return tuple(name for name in names if present(name))

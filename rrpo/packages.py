"""Detect optional packages. Without one, what it measures is NaN or "not installed"; nothing fails."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache


@cache
def present(name: str) -> bool:
    """Return whether the module ``name`` can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def installed(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``names`` that are installed. As part of a stage's config, it causes a rebuild when a package is added."""
    return tuple(name for name in names if present(name))

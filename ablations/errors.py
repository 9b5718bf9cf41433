"""Errors for invalid input, re-exported from `rrpo.errors`."""

from rrpo.errors import InputError, choose, positive

__all__ = ["InputError", "choose", "positive"]

"""The error of bad input, as every command raises it; it lives in `rrpo.errors`, since `python -m rrpo` raises it too."""

from rrpo.errors import InputError, choose, positive

__all__ = ["InputError", "choose", "positive"]

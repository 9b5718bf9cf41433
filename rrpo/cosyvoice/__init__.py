"""Train CosyVoice2's language model with this project's reward models and optimizers, on speech tokens only.

`rrpo.cosyvoice.policy.CosyVoice2Policy` loads and saves the weights, `rrpo.cosyvoice.fsq.FsqDigits` converts tokens to the
input of reward models, and `rrpo.cosyvoice.run.train` runs one experiment. The command line is ``python -m rrpo.cosyvoice``.
Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {"CosyVoice2Policy": "policy", "CosyVoiceConfig": "config", "FsqDigits": "fsq", "train": "run"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)

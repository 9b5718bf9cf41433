"""One experiment cell of RRPO: audio codec, reward model, regularizers, policy optimization and judges.

    import rrpo

    result = rrpo.train("rrpo", seed=1, profile="quick", settings={"optimize.beta": 0.01})
    result.numbers["end_test_accuracy"], result.tables["samples.parquet"]

The names below are imported on first use, so importing the package does not import torch. It only installs the shim that makes
torchaudio importable beside a CPU build of torch. On the command line: ``python -m rrpo --arm rrpo --seed 1``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rrpo import torch_shim

if TYPE_CHECKING:  # the same names as in _MODULES
    from rrpo.api import Result, make_cell, train  # noqa: F401
    from rrpo.arms import ARMS, arm  # noqa: F401
    from rrpo.config import ArmConfig, OptimizeConfig, RegularizerConfig  # noqa: F401
    from rrpo.errors import InputError  # noqa: F401
    from rrpo.experiment.cell import Cell  # noqa: F401
    from rrpo.experiment.effective import effective  # noqa: F401
    from rrpo.plugins import Choice, PluginError, Registry  # noqa: F401
    from rrpo.profiles import PROFILES, Profile  # noqa: F401
    from rrpo.settings import changed  # noqa: F401

_MODULES = {
    "rrpo.api": ("Result", "make_cell", "train"),
    "rrpo.arms": ("ARMS", "arm"),
    "rrpo.config": ("ArmConfig", "OptimizeConfig", "RegularizerConfig"),
    "rrpo.errors": ("InputError",),
    "rrpo.experiment.cell": ("Cell",),
    "rrpo.experiment.effective": ("effective",),
    "rrpo.plugins": ("Choice", "PluginError", "Registry"),
    "rrpo.profiles": ("PROFILES", "Profile"),
    "rrpo.settings": ("changed",),
}
"""Module -> public names that it defines."""
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = list(_HOMES)

torch_shim.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)

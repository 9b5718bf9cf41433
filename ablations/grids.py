"""Named arms, and grids as Python functions that return cells, seed by seed over all arms.

A grid is a function ``(profile, seeds) -> cells``. To add one, write the function and name it in `GRIDS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rrpo.cell import Cell
from rrpo.config import OFF, ArmConfig, RegularizerConfig
from rrpo.pipeline import SFT
from rrpo.profiles import Profile

FIRST_SEED = 1
"""Default first seed of a grid. Seeds from 1000 on are for development: never report what was tuned on them."""


def _regularised(*, ls: bool = False, eam: bool = False, adv: bool = False) -> RegularizerConfig:
    """The paper's strengths for the components named, identity for the others (same code path)."""
    paper = RegularizerConfig()
    return RegularizerConfig(
        epsilon=paper.epsilon if ls else 0.0,
        mix_probability=paper.mix_probability if eam else 0.0,
        alpha=paper.alpha if adv else 0.0,
    )


_VANILLA = ArmConfig(regularizers=OFF)

ARMS: dict[str, ArmConfig] = {
    "sft": SFT,
    "pretrained": ArmConfig(regularizers=OFF, finetune=False),
    "diffro": _VANILLA,
    "ls": ArmConfig(regularizers=_regularised(ls=True)),
    "eam": ArmConfig(regularizers=_regularised(eam=True)),
    "adv": ArmConfig(regularizers=_regularised(adv=True)),
    "ls_eam": ArmConfig(regularizers=_regularised(ls=True, eam=True)),
    "ls_adv": ArmConfig(regularizers=_regularised(ls=True, adv=True)),
    "eam_adv": ArmConfig(regularizers=_regularised(eam=True, adv=True)),
    "rrpo": ArmConfig(regularizers=_regularised(ls=True, eam=True, adv=True)),
    "oracle": ArmConfig(regularizers=OFF, rm_data="oracle", finetune=False),
    "placebo": ArmConfig(regularizers=OFF, shuffle_labels=True, finetune=False),
    "early_stopped": replace(_VANILLA, steps=40),
    "no_content": replace(_VANILLA, content_weight=0.0),
}
"""Arms by name. ``placebo`` is not fine-tuned: annotated labels would teach its reward model what it must not know."""

FACTORIAL = ("diffro", "ls", "eam", "adv", "ls_eam", "ls_adv", "eam_adv", "rrpo")
"""The 2^3 factorial of LS, EAM and Adv."""


def product(arms: dict[str, ArmConfig], profile: Profile, seeds: Sequence[int], *, policy: bool = True) -> list[Cell]:
    """Arms x seeds, seed by seed over all arms."""
    return [
        Cell(label=label, arm=arm, seed=seed, profile=profile, policy=policy)
        for seed in seeds
        for label, arm in arms.items()
    ]


def _named(*names: str) -> dict[str, ArmConfig]:
    return {name: ARMS[name] for name in names}


def split_label(label: str) -> tuple[str, str]:
    """Arm and setting of a cell's label ``arm@setting``; the setting is empty in a grid of plain arms."""
    arm, _, setting = label.partition("@")
    return arm, setting


def smoke(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """A first look: vanilla DiffRO and full RRPO."""
    return product(_named("diffro", "rrpo"), profile, seeds)


def loo(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Leave one out: RRPO minus each component (``eam_adv`` is RRPO minus LS), between SFT, DiffRO and RRPO."""
    return product(_named("sft", "diffro", "eam_adv", "ls_adv", "ls_eam", "rrpo"), profile, seeds)


def full(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """The 2^3 factorial, framed by SFT, the pre-trained RM, the oracle, the placebo and early stopping."""
    arms = _named("sft", "pretrained", *FACTORIAL, "oracle", "placebo", "early_stopped")
    arms["early_stopped"] = replace(arms["early_stopped"], steps=min(40, profile.optimize.steps // 2))
    return product(arms, profile, seeds)


SINGLES = ("diffro", "ls", "eam", "adv", "rrpo")
"""No component, each by itself, all three: what is run in every setting of a grid of settings."""


def shortcut(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Strength of the planted shortcut 0, .5, .9 x DiffRO, single components, RRPO; labels like ``diffro@shortcut0.5``."""
    arms = {
        f"{name}@shortcut{strength:g}": replace(ARMS[name], shortcut=strength)
        for strength in (0.0, 0.5, 0.9)
        for name in SINGLES
    }
    return product(arms, profile, seeds)


def sensitivity(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Rater noise .3, .6 x planted shortcut 0, .9 x the RM's learning rate 1e-4, 3e-4, 1e-3, by DiffRO, singles, RRPO.

    One setting is the embedded world's own. Labels like ``rrpo@noise0.6_shortcut0.9_lr0.0003``.
    """
    arms = {
        f"{name}@noise{noise:g}_shortcut{strength:g}_lr{lr:g}": replace(
            ARMS[name], rater_noise=noise, shortcut=strength, rm_lr=lr
        )
        for noise, strength, lr in itertools.product((0.3, 0.6), (0.0, 0.9), (1e-4, 3e-4, 1e-3))
        for name in SINGLES
    }
    return product(arms, profile, seeds)


def rm(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Reward models alone: every distinct one of the full grid, no policy."""
    return product(_named("pretrained", *FACTORIAL, "oracle", "placebo"), profile, seeds, policy=False)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid function with what it is run on when the user does not say."""

    cells: Callable[[Profile, Sequence[int]], list[Cell]]
    """Arms x seeds."""
    profile: str = "embedded"
    """Name of the default profile."""
    seeds: int = 5
    """Default number of seeds."""


GRIDS: dict[str, Grid] = {
    "smoke": Grid(cells=smoke, profile="smoke", seeds=2),
    "loo": Grid(cells=loo),
    "full": Grid(cells=full, seeds=8),
    "shortcut": Grid(cells=shortcut),
    "sensitivity": Grid(cells=sensitivity),
    "rm": Grid(cells=rm),
}
"""Every grid by name; also the name of its MLflow experiment."""


def scale_batches(profile: Profile, factor: int) -> Profile:
    """The profile with every training batch ``factor`` times as large, under a name (and hash) of its own.

    For GPUs. It changes the experiment: results of different factors are never pooled.
    """
    if factor == 1:
        return profile

    def larger(name: str) -> object:
        config = getattr(profile, name)
        return replace(config, batch=config.batch * factor)

    parts = ("codec", "recogniser", "val_judge", "test_judge", "pretrain", "finetune", "base", "sft", "optimize")
    changes = {name: larger(name) for name in parts}
    return replace(profile, name=f"{profile.name}-b{factor}", **changes)  # type: ignore[arg-type]

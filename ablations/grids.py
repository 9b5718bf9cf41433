"""Named arms, and grids as Python functions that return cells, seed by seed over all arms.

A grid is a function ``(profile, seeds) -> cells``. To add one, write the function in a file of your own, register it in `GRIDS`,
and give the file to ``--plugin``, as ``examples/two_rates.py`` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ablations.components import BASE, RRPO, arm_of, factorial, regularizers, singles, subsets
from ablations.stats.contrasts import corner_effects
from rrpo.arms import ARMS
from rrpo.config import ArmConfig
from rrpo.pipeline.cell import Cell
from rrpo.plugins import Registry
from rrpo.profiles import Profile

FIRST_SEED = 1
"""Default first seed of a grid. Seeds from 1000 on are for development: never report what was tuned on them."""


def arms() -> dict[str, ArmConfig]:
    """Arms by name: those of `rrpo.arms.ARMS`, and the factorial of the components."""
    return {**ARMS, **{arm_of(on): ArmConfig(regularizers=regularizers(on)) for on in subsets()}}


def product(chosen: dict[str, ArmConfig], profile: Profile, seeds: Sequence[int], *, policy: bool = True) -> list[Cell]:
    """Arms x seeds, seed by seed over all arms."""
    return [
        Cell(label=label, arm=arm, seed=seed, profile=profile, policy=policy)
        for seed in seeds
        for label, arm in chosen.items()
    ]


def _named(*names: str) -> dict[str, ArmConfig]:
    known = arms()
    return {name: known[name] for name in names}


def split_label(label: str) -> tuple[str, str]:
    """Arm and setting of a cell's label ``arm@setting``; the setting is empty in a grid of plain arms."""
    arm, _, setting = label.partition("@")
    return arm, setting


def smoke(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """A first look: vanilla DiffRO and full RRPO."""
    return product(_named(BASE, RRPO), profile, seeds)


def loo(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Leave one out: RRPO minus each component (``eam_adv`` is RRPO minus LS), between SFT, DiffRO and RRPO.

    A component that is not the paper's is added to RRPO instead.
    """
    corners = [arm for weights in corner_effects().values() for arm in weights if arm != RRPO]
    return product(_named("sft", BASE, *corners, RRPO), profile, seeds)


def full(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """The factorial of the components, framed by SFT, the pre-trained RM, the oracle and the placebo."""
    return product(_named("sft", "pretrained", *factorial(), "oracle", "placebo"), profile, seeds)


def shortcut(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Strength of the planted shortcut 0, .5, .9 x DiffRO, single components, RRPO; labels like ``diffro@shortcut0.5``."""
    chosen = {
        f"{name}@shortcut{strength:g}": replace(arm, shortcut=strength)
        for strength in (0.0, 0.5, 0.9)
        for name, arm in _named(*singles()).items()
    }
    return product(chosen, profile, seeds)


def sensitivity(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Rater noise .3, .6 x planted shortcut 0, .9 x the RM's learning rate 1e-4, 3e-4, 1e-3, by DiffRO, singles, RRPO.

    One setting is the embedded world's own. Labels like ``rrpo@noise0.6_shortcut0.9_lr0.0003``.
    """
    chosen = {
        f"{name}@noise{noise:g}_shortcut{strength:g}_lr{lr:g}": replace(
            arm, rater_noise=noise, shortcut=strength, rm_lr=lr
        )
        for noise, strength, lr in itertools.product((0.3, 0.6), (0.0, 0.9), (1e-4, 3e-4, 1e-3))
        for name, arm in _named(*singles()).items()
    }
    return product(chosen, profile, seeds)


def rm(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Reward models alone: every distinct one of the full grid, no policy."""
    return product(_named("pretrained", *factorial(), "oracle", "placebo"), profile, seeds, policy=False)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid function with what it is run on when the user does not say. `rrpo.testing.grids` holds the tests of one."""

    cells: Callable[[Profile, Sequence[int]], list[Cell]]
    """Arms x seeds."""
    profile: str = "embedded"
    """Name of the default profile."""
    seeds: int = 5
    """Default number of seeds."""
    first_seed: int = FIRST_SEED
    """The first of them, by default."""


GRIDS: Registry[Grid] = Registry("grid")
"""Every grid by name; also the name of its MLflow experiment."""

GRIDS.register("smoke", Grid(cells=smoke, profile="smoke", seeds=2))
GRIDS.register("loo", Grid(cells=loo))
GRIDS.register("full", Grid(cells=full, seeds=8))
GRIDS.register("shortcut", Grid(cells=shortcut))
GRIDS.register("sensitivity", Grid(cells=sensitivity))
GRIDS.register("rm", Grid(cells=rm))


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

"""Named arms, and the grids, which are functions that return cells.

A grid is a function ``(profile, seeds) -> cells``, with all arms of the first seed first. To add one, write the function in your
own file, register it in `GRIDS`, and pass the file with ``--plugin``; see ``examples/two_rates.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.baselines import CORE, controlled
from ablations.components import factorial, singles
from ablations.guided_arms import sweeps
from ablations.stats.contrasts import corner_effects
from rrpo.arms import ARMS, BASE, RRPO, arm
from rrpo.config import ArmConfig
from rrpo.experiment.cell import Cell
from rrpo.plugins import Registry
from rrpo.profiles import Profile

FIRST_SEED = 101
"""Default first seed of a grid. Results of lower seeds were seen in earlier worlds."""
DEVELOPMENT = 1000
"""The first development seed. Lower seeds are for reports: results of seeds that were used for tuning are never reported."""
CONTROLS = ("placebo", "content_only")
"""Arms whose reward contains no information about emotion: neither may end above SFT (rule 6 of ``docs/regime.md``)."""
ALTERNATIVES = ("diffro_scaled", "diffro_kl")
"""Alternative explanations of a gain of RRPO: vanilla DiffRO with RRPO's gradient norm, and with a larger KL penalty."""
CONTROL_SEEDS = 3
"""The controls are run on this many of the grid's seeds, starting with the first."""
RM_DATA_SIZES = ((2000, 32, 300), (500, 32, 100), (150, 8, 60), (75, 3, 30))
"""Sizes of the reward model's data, largest first: pre-training utterances, pre-training speakers, annotated utterances."""
OVERRIDES: dict[str, str] = {
    "rater_noise": "rater_noise",
    "shortcut": "shortcut",
    "annotated_artefacts": "annotated_artefact_rate",
    "rm_lr": "finetune.lr",
    "rm_utterances": "sizes.rm_pretrain",
    "rm_speakers": "rm_speakers",
    "annotated": "annotated",
    "reward": "optimize.reward",
    "lr": "optimize.lr",
    "beta": "optimize.beta",
    "steps": "optimize.steps",
}
"""Fields of `ArmConfig` that `sensitivity` changes -> path in the profile to the value used if an arm does not set the field."""


def arms() -> dict[str, ArmConfig]:
    """Return all arms by name: those of `rrpo.arms.ARMS`, and the factorial of the components."""
    return {**ARMS, **{name: arm(name) for name in factorial()}}


def product(arms: dict[str, ArmConfig], profile: Profile, seeds: Sequence[int], *, policy: bool = True) -> list[Cell]:
    """Return the cells of arms x seeds, with all arms of the first seed first."""
    pairs = itertools.product(seeds, arms.items())
    return [Cell(label=label, arm=arm, seed=seed, profile=profile, policy=policy) for seed, (label, arm) in pairs]


def _arms_named(*names: str) -> dict[str, ArmConfig]:
    known = arms()
    return {name: known[name] for name in names}


def split_label(label: str) -> tuple[str, str]:
    """Return arm and setting of a label ``arm@setting``; the setting is empty in a grid of plain arms."""
    arm, _, setting = label.partition("@")
    return arm, setting


def join_label(arm: str, setting: str) -> str:
    """Return the label of an arm in a setting, which `split_label` splits again."""
    return f"{arm}@{setting}" if setting else arm


def smoke(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Quick check: vanilla DiffRO and full RRPO."""
    return product(_arms_named(BASE, RRPO), profile, seeds)


def loo(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Leave one out: SFT, DiffRO, RRPO without each component (``eam_adv`` is RRPO without LS), and RRPO.

    A component that is not from the paper is added to RRPO instead.
    """
    corners = [arm for weights in corner_effects().values() for arm in weights if arm != RRPO]
    return product(_arms_named("sft", BASE, *corners, RRPO), profile, seeds)


def full(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Factorial of the components, SFT, pre-trained RM, oracle, `ALTERNATIVES`; on the first `CONTROL_SEEDS` also `CONTROLS`."""
    main_arms = _arms_named("sft", "pretrained", *factorial(), "oracle", *ALTERNATIVES)
    with_controls = main_arms | _arms_named(*CONTROLS)
    return product(with_controls, profile, seeds[:CONTROL_SEEDS]) + product(main_arms, profile, seeds[CONTROL_SEEDS:])


def shortcut(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Planted shortcut of strength 0, .5, .9 x DiffRO, single components, RRPO; labels such as ``diffro@shortcut0.5``."""
    labelled = {
        join_label(name, f"shortcut{strength:g}"): replace(arm, shortcut=strength)
        for strength in (0.0, 0.5, 0.9)
        for name, arm in _arms_named(*singles()).items()
    }
    return product(labelled, profile, seeds)


def profile_value(profile: Profile, override: str) -> Any:
    """Return the profile's value of a field of `OVERRIDES`, which applies to arms that do not set it."""
    value: Any = profile
    for name in OVERRIDES[override].split("."):
        value = value[name] if isinstance(value, Mapping) else getattr(value, name)
    return value


Overrides = dict[str, Any]
"""Fields of `ArmConfig` -> values."""


def settings(profile: Profile) -> dict[str, tuple[Overrides, tuple[str, ...]]]:
    """Return the settings of `sensitivity`: name -> fields that differ from the profile, and arms that the setting changes."""
    push: dict[str, Overrides] = {"own": {}, "hard": {"beta": 0.001, "steps": 480, "lr": 2 * profile.optimize.lr}}
    push |= {f"beta{beta:g}": {"beta": beta} for beta in (0.001, 0.01, 0.03)}
    data: dict[str, Overrides] = {f"noise{noise:g}": {"rater_noise": noise} for noise in (0.3, 4.0)}
    data |= {f"shortcut{strength:g}": {"shortcut": strength} for strength in (0.0, 0.9)}
    data |= {f"artefacts{rate:g}": {"annotated_artefacts": rate} for rate in (0.0, 0.25)}
    data |= {f"rm_lr{lr:g}": {"rm_lr": lr} for lr in (1e-4, 3e-4, 1e-3)}
    data |= {
        f"data{size}_{speakers}_{annotated}": {"rm_utterances": size, "rm_speakers": speakers, "annotated": annotated}
        for size, speakers, annotated in RM_DATA_SIZES
    }
    reward: dict[str, Overrides] = {form: {"reward": form} for form in ("smoothed_ce", "full_l_ser")}
    declared: dict[str, tuple[Overrides, tuple[str, ...]]] = {}
    for arms_changed, levels in (((BASE, RRPO, "oracle"), push), ((BASE, RRPO), data), ((RRPO,), reward)):
        for name, values in levels.items():
            differing = {field: value for field, value in values.items() if value != profile_value(profile, field)}
            if differing or not values:
                declared[name] = differing, arms_changed
    return declared


def sensitivity(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """One setting changed at a time, for DiffRO and RRPO, and for the oracle if it is affected; labels such as ``rrpo@noise4``.

    ``diffro@own``, ``rrpo@own`` and ``oracle@own`` use the unchanged profile; a level equal to the profile's is omitted. An arm
    that a setting does not change (a vanilla reward model has only one form of reward) shares all its stages with ``@own``.
    """
    known = arms()
    labelled = {
        join_label(name, setting): replace(known[name], **(values if name in changed else {}))
        for setting, (values, changed) in settings(profile).items()
        for name in dict.fromkeys((BASE, RRPO, *changed))
    }
    return product(labelled, profile, seeds)


def rm(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Every distinct reward model of the full grid, without policies.

    The oracle is omitted for reward models that are pre-trained on a user's data, unless there are data for it too.
    """
    has_oracle = "rm_oracle" in profile.manifests or "rm_pretrain" not in profile.manifests
    names = ("pretrained", *factorial(), *(["oracle"] if has_oracle else []), "placebo")
    return product(_arms_named(*names), profile, seeds, policy=False)


def paper(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """CosyVoice2's language model on a user's labelled tokens: SFT, and the factorial of the components."""
    return product(_arms_named("sft", *factorial()), profile, seeds)


def guidance(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Guided decoding across its hyperparameters, and SFT; labels such as ``emodiff@alpha0.5``.

    Arms with unseen speakers are omitted for a user's data, because such speakers exist only in the rendered world.
    """
    guided = {label: arm for label, arm in sweeps().items() if arm.reversal is None or not profile.manifests}
    return product(_arms_named("sft") | guided, profile, seeds)


def other_systems(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """SFT, DiffRO, RRPO, the baselines in `CORE` and the components that some of them control, with the same data, reward models
    and judges; a screen without tests."""
    return product(_arms_named("sft", BASE, RRPO, *controlled(), *CORE), profile, seeds)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid function and its defaults. `rrpo.testing.grids` has contract tests for grids."""

    cells: Callable[[Profile, Sequence[int]], list[Cell]]
    """Returns the cells for a profile and seeds."""
    profile: str = "embedded"
    """Name of the default profile."""
    seeds: int = 5
    """Default number of seeds."""
    first_seed: int = FIRST_SEED
    """Default first seed; the others follow it."""
    screen: bool = False
    """Whether the grid is a screen: reports give estimates and intervals, and test nothing."""


GRIDS: Registry[Grid] = Registry("grid", of=Grid, reserved=("world",))
"""Grids by name, which is also the name of the MLflow experiment."""

GRIDS.register("smoke", Grid(cells=smoke, profile="quick", seeds=2, first_seed=DEVELOPMENT))
GRIDS.register("loo", Grid(cells=loo))
GRIDS.register("full", Grid(cells=full, seeds=16))
GRIDS.register("shortcut", Grid(cells=shortcut))
GRIDS.register("sensitivity", Grid(cells=sensitivity))
GRIDS.register("rm", Grid(cells=rm))
GRIDS.register("paper", Grid(cells=paper, profile="paper", seeds=3))
GRIDS.register("guidance", Grid(cells=guidance, seeds=3, screen=True))
GRIDS.register("baselines", Grid(cells=other_systems, seeds=3, screen=True))


def scale_batches(profile: Profile, factor: int) -> Profile:
    """Return the profile with every training batch ``factor`` times as large, under a different name (and hash).

    The prefix classifier and the zero-shot policy keep theirs. Intended for GPUs. This is a different experiment: results of
    different factors are never pooled.
    """
    if factor == 1:
        return profile

    parts = ("codec", "recogniser", "val_judge", "test_judge", "pretrain", "finetune", "base", "sft", "optimize")
    configs: dict[str, Any] = {name: getattr(profile, name) for name in parts}
    larger = {name: replace(config, batch=config.batch * factor) for name, config in configs.items()}
    return replace(profile, name=f"{profile.name}-b{factor}", **larger)

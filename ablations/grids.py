"""Named arms, and grids as Python functions that return cells, seed by seed over all arms.

A grid is a function ``(profile, seeds) -> cells``. To add one, write the function in a file of your own, register it in `GRIDS`,
and give the file to ``--plugin``, as ``examples/two_rates.py`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.baselines import CORE
from ablations.components import factorial, singles
from ablations.guided_arms import sweeps
from ablations.stats.contrasts import corner_effects
from rrpo.arms import ARMS, BASE, RRPO, arm
from rrpo.config import ArmConfig
from rrpo.cosyvoice.config import mixtures
from rrpo.pipeline.cell import Cell
from rrpo.plugins import Registry
from rrpo.profiles import Profile

FIRST_SEED = 101
"""Default first seed of a grid: the seeds below were looked at in former worlds. Those from 1000 on are for development: never
report what was tuned on them."""
CONTROLS = ("placebo", "content_only")
"""Arms whose reward knows nothing of emotion: neither may end above SFT (rule 6 of ``docs/regime.md``)."""
ALTERNATIVES = ("diffro_scaled", "diffro_kl")
"""Vanilla with a gradient of RRPO's size, and under a larger KL penalty: what a gain of RRPO might be instead of robustness."""
CONTROL_SEEDS = 3
"""Of a grid's seeds the first, on which the controls are run."""
RM_DATA_SIZES = ((2000, 32, 300), (500, 32, 100), (150, 8, 60), (75, 3, 30))
"""Data of the reward model, most first: utterances and speakers of its pre-training, annotated utterances."""
OVERRIDES: dict[str, str] = {
    "rater_noise": "rater_noise",
    "shortcut": "shortcut",
    "annotated_artefacts": "annotated_artefact_rate",
    "rm_lr": "finetune.lr",
    "rm_utterances": "sizes.rm_pretrain",
    "rm_speakers": "world.rm_speakers",
    "annotated": "annotated",
    "reward": "optimize.reward",
    "lr": "optimize.lr",
    "beta": "optimize.beta",
    "steps": "optimize.steps",
}
"""What grids of settings change: fields of `ArmConfig`, and where the profile has the value of arms that do not set them."""


def arms() -> dict[str, ArmConfig]:
    """Arms by name: those of `rrpo.arms.ARMS`, and the factorial of the components."""
    return {**ARMS, **{name: arm(name) for name in factorial()}}


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
    """The factorial of the components, SFT, pre-trained RM, oracle and `ALTERNATIVES`; on the first seeds the controls too."""
    every = _named("sft", "pretrained", *factorial(), "oracle", *ALTERNATIVES)
    few = every | _named(*CONTROLS)
    return product(few, profile, seeds[:CONTROL_SEEDS]) + product(every, profile, seeds[CONTROL_SEEDS:])


def shortcut(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Strength of the planted shortcut 0, .5, .9 x DiffRO, single components, RRPO; labels like ``diffro@shortcut0.5``."""
    chosen = {
        f"{name}@shortcut{strength:g}": replace(arm, shortcut=strength)
        for strength in (0.0, 0.5, 0.9)
        for name, arm in _named(*singles()).items()
    }
    return product(chosen, profile, seeds)


def profile_value(profile: Profile, override: str) -> Any:
    """What an arm that does not set a field of `OVERRIDES` has."""
    found: Any = profile
    for name in OVERRIDES[override].split("."):
        found = found[name] if isinstance(found, Mapping) else getattr(found, name)
    return found


Overrides = dict[str, Any]
"""Fields of `ArmConfig` -> values."""


def settings(profile: Profile) -> dict[str, tuple[Overrides, tuple[str, ...]]]:
    """The settings of `sensitivity` by name: what differs from the profile, and the arms to which it makes a difference."""
    push: dict[str, Overrides] = {"own": {}, "hard": {"beta": 0.001, "steps": 480, "lr": 2 * profile.optimize.lr}}
    push |= {f"beta{beta:g}": {"beta": beta} for beta in (0.001, 0.01, 0.03)}
    data: dict[str, Overrides] = {f"noise{noise:g}": {"rater_noise": noise} for noise in (0.3, 0.6)}
    data |= {f"shortcut{strength:g}": {"shortcut": strength} for strength in (0.0, 0.9)}
    data |= {f"artefacts{rate:g}": {"annotated_artefacts": rate} for rate in (0.0, 0.25)}
    data |= {f"rm_lr{lr:g}": {"rm_lr": lr} for lr in (1e-4, 3e-4, 1e-3)}
    data |= {
        f"data{size}_{speakers}_{annotated}": {"rm_utterances": size, "rm_speakers": speakers, "annotated": annotated}
        for size, speakers, annotated in RM_DATA_SIZES
    }
    reward: dict[str, Overrides] = {form: {"reward": form} for form in ("smoothed_ce", "full_l_ser")}
    found: dict[str, tuple[Overrides, tuple[str, ...]]] = {}
    for arms_changed, levels in (((BASE, RRPO, "oracle"), push), ((BASE, RRPO), data), ((RRPO,), reward)):
        for name, values in levels.items():
            differing = {field: value for field, value in values.items() if value != profile_value(profile, field)}
            if differing or not values:
                found[name] = differing, arms_changed
    return found


def sensitivity(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """One setting changed at a time, by DiffRO and RRPO, and the oracle where that changes it; labels like ``rrpo@noise0.6``.

    ``diffro@own``, ``rrpo@own`` and ``oracle@own`` are the profile as it is, and a level that is the profile's own is no other
    setting. An arm that a setting leaves as it is (a vanilla reward model has one form of reward) shares all its stages.
    """
    known = arms()
    chosen = {
        f"{name}@{setting}": replace(known[name], **(values if name in changed else {}))
        for setting, (values, changed) in settings(profile).items()
        for name in dict.fromkeys((BASE, RRPO, *changed))
    }
    return product(chosen, profile, seeds)


def rm(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Reward models alone: every distinct one of the full grid, no policy."""
    return product(_named("pretrained", *factorial(), "oracle", "placebo"), profile, seeds, policy=False)


def paper(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """CosyVoice2's language model on a user's labelled tokens: SFT, and the factorial of the components that tokens admit."""
    admitted = [name for name in factorial() if not mixtures(arm(name).regularizers)]
    return product(_named("sft", *admitted), profile, seeds)


def guidance(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Guided decoding over its knobs, beside SFT; labels like ``emodiff@alpha0.5``. Unseen speakers are the rendered world's."""
    own = {label: arm for label, arm in sweeps().items() if arm.reversal is None or not profile.manifests}
    return product(_named("sft") | own, profile, seeds)


def other_systems(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """A screen: what else the same data, reward models and judges allow, beside SFT, DiffRO and RRPO; estimates, no tests."""
    return product(_named("sft", BASE, RRPO, *CORE), profile, seeds)


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
    screen: bool = False
    """Whether its arms are only screened: estimates and intervals, nothing is tested."""


GRIDS: Registry[Grid] = Registry("grid")
"""Every grid by name; also the name of its MLflow experiment."""

GRIDS.register("smoke", Grid(cells=smoke, profile="quick", seeds=2, first_seed=1000))
GRIDS.register("loo", Grid(cells=loo))
GRIDS.register("full", Grid(cells=full, seeds=8))
GRIDS.register("shortcut", Grid(cells=shortcut))
GRIDS.register("sensitivity", Grid(cells=sensitivity))
GRIDS.register("rm", Grid(cells=rm))
GRIDS.register("paper", Grid(cells=paper, profile="paper", seeds=3))
GRIDS.register("guidance", Grid(cells=guidance, seeds=3, screen=True))
GRIDS.register("baselines", Grid(cells=other_systems, seeds=3, screen=True))


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

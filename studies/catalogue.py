"""The named studies, as Python functions that return a `Study`. To add one, write a function and add it to `STUDIES`:

    def smoothing() -> Study:
        space = {"epsilon": FloatDistribution(0.0, 0.3)}
        return Study("smoothing", space, {"epsilon": 0.1}, lambda knobs: ArmConfig(regularizers=regularizer_config(knobs)))

The components (`ablations.components`) declare the hyperparameters (`Knob`) of the regularizers. No space is conditional, because
a component is off at its identity value; importances of hyperparameters are therefore comparable. Studies use development seeds
only (1000 and above), so that a search never uses the seeds of a report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution

from ablations.components import COMPONENTS, component
from ablations.grids import arms
from rrpo.arms import ARMS, BASE, RRPO
from rrpo.config import ArmConfig, OptimizeConfig, RegularizerConfig
from rrpo.errors import InputError, choose
from rrpo.models.guidance import GUIDANCE
from rrpo.optimizers import OPTIMIZERS
from rrpo.plugins import OptionRegistry, Search
from rrpo.regularizers import REGULARIZERS, Knob, configured, switched_on

Distribution = FloatDistribution | CategoricalDistribution
Knobs = Mapping[str, Any]
"""Hyperparameter -> number or text."""
TUNE = "tune-arm"
TAUS: dict[str, tuple[float, ...]] = {
    "1": (1.0,),
    "2-1": (2.0, 1.0),
    "2-1-0.8": (2.0, 1.0, 0.8),
    "0.5": (0.5,),
    "2": (2.0,),
}
"""Schedules of the relaxation's temperature tau, by name; ``2-1-0.8`` is the schedule of HPRO."""
NAMES = {taus: name for name, taus in TAUS.items()}


OWN: dict[str, Search] = {
    "emotion_weight": Search((0.1, 10.0), log=True),
    "content_weight": Search((0.05, 10.0), log=True),
    "variance_penalty": Search((0.0, 5.0)),
    "style_weight": Search((0.1, 100.0), log=True),
    "tau": Search(tuple(TAUS)),
}
"""Fields of `ArmConfig` that are searched if an arm sets them."""
PUSH: dict[str, Distribution] = {
    "lr": FloatDistribution(2e-5, 5e-3, log=True),
    "beta": FloatDistribution(1e-4, 0.1, log=True),
}
"""Search space of learning rate and beta."""
CHOSEN: dict[str, OptionRegistry[Any]] = {"optimizer": OPTIMIZERS, "guidance": GUIDANCE}
"""Fields of `ArmConfig` that select a registry entry, whose options may be searched."""
DEFAULT = OptimizeConfig()
"""Values of a study that is not yet on a profile, see `Study.on`."""


@dataclass(frozen=True)
class Study:
    """A search space, and the function that turns its points into arms."""

    name: str
    """Name of the study and its MLflow experiment."""
    space: Mapping[str, Distribution]
    """Hyperparameter -> distribution."""
    paper: Knobs
    """The paper's values, or this project's where the paper gives none. They are the first trial, and the baseline."""
    arm: Callable[[Knobs], ArmConfig]
    """Returns the arm for a point of the space."""
    objectives: tuple[str, ...] = ("clean_success",)
    """Default objectives, keys of `studies.trial.OBJECTIVES`."""
    profile_values: tuple[str, ...] = ()
    """Hyperparameters whose first value is the profile's (fields of `OptimizeConfig`), as for every arm of a grid."""

    def on(self, optimize: OptimizeConfig) -> Study:
        """Return the study with the values of a profile's policy optimization as the first ones of `profile_values`."""
        return replace(self, paper={**self.paper, **{name: getattr(optimize, name) for name in self.profile_values}})

    @property
    def elsewhere(self) -> Knobs:
        """A point that differs from the paper's in every hyperparameter that varies: the stages common to both are common to all
        trials."""
        return {
            name: next((v for v in ends(d) if v != self.paper[name]), self.paper[name])
            for name, d in self.space.items()
        }


def regularizer_config(knobs: Knobs, **fields: Any) -> RegularizerConfig:
    """Return a config with the given hyperparameters, and the paper's values for all others.

    ``fields`` are fields of `RegularizerConfig` that belong to no component.
    """
    values = {name: float(value) for name, value in (paper() | dict(knobs)).items()}
    return configured({component.name: component.strengths(values) for component in COMPONENTS}, **fields)


def knobs_of() -> list[Knob]:
    """Return the hyperparameters of all components."""
    return [knob for part in COMPONENTS for knob in part.knobs]


def space_of(knobs: Sequence[Knob]) -> dict[str, Distribution]:
    """Return the search space of hyperparameters, from their declared ranges."""
    return {knob.name: FloatDistribution(knob.low, knob.high, log=knob.log) for knob in knobs}


def paper() -> dict[str, float | str]:
    """Return the paper's values; components that are not from the paper are off."""
    return {
        knob.name: knob.on if component.paper or knob.off is None else knob.off
        for component in COMPONENTS
        for knob in component.knobs
    }


def regularizers() -> Study:
    """Search the hyperparameters of all components, with an absolute perturbation radius as in the paper."""
    return Study(
        "regularizers", space_of(knobs_of()), paper(), lambda knobs: ArmConfig(regularizers=regularizer_config(knobs))
    )


def regularizers_relative() -> Study:
    """Search the same with a perturbation radius relative to ||h'||, which is independent of the length."""
    space = space_of(knobs_of()) | {"epsilon_adv": FloatDistribution(0.001, 1.0, log=True)}
    first = paper() | {"epsilon_adv": 0.006}  # 0.5 is about .6 % of the norm of a LayerNormed h' of 70 x 96

    def arm(knobs: Knobs) -> ArmConfig:
        return ArmConfig(regularizers=regularizer_config(knobs, adv_norm="relative"))

    return Study("regularizers_relative", space, first, arm)


def policy() -> Study:
    """Search the policy optimization on the full RRPO reward model: learning rate, beta, temperature schedule."""
    first = {"lr": DEFAULT.lr, "beta": DEFAULT.beta, "tau": "1"}
    space = PUSH | {"tau": _distribution(OWN["tau"])}

    def arm(knobs: Knobs) -> ArmConfig:
        return replace(arms()[RRPO], **_overrides(knobs))

    return Study("policy", space, first, arm, profile_values=tuple(PUSH))


def rm() -> Study:
    """Search the space of `regularizers` by the reward model alone, without a policy: a cheap warm start for `regularizers`."""
    return replace(regularizers(), name="rm", objectives=("cross_language", "robustness"))


def tune_arm(arm: str) -> Study:
    """Search the hyperparameters of one arm, with learning rate and beta.

    They are the strengths of its regularizers, the options of its optimizer or guidance that are declared as searched, and the
    fields in `OWN`. For a fair comparison, run it for every arm with the same number of trials.
    """
    return _tune(arm, arms()[arm])


def _tune(arm: str, config: ArmConfig) -> Study:
    parts = [component(name) for name in switched_on(config.regularizers)]
    strengths = [knob for part in parts for knob in part.knobs]
    searched = strengths if config.finetune else []
    space = space_of(searched)
    first: dict[str, Any] = {knob.name: knob.on for knob in searched}
    choices = {kind: choice for kind in CHOSEN if (choice := getattr(config, kind))}
    for kind, choice in choices.items():
        for name, search in CHOSEN[kind].searched(choice).items():
            space[f"{choice.name}.{name}"] = _distribution(search)
            first[f"{choice.name}.{name}"] = dict(choice.options)[name]
    settings = {name: getattr(config, name) for name in OWN if getattr(config, name) != getattr(ARMS[BASE], name)}
    space |= {name: _distribution(OWN[name]) for name in settings}
    first |= {name: NAMES[value] if name == "tau" else value for name, value in settings.items()}
    of_profile = ("content_weight",) if config.best_of else () if config.guidance else tuple(PUSH)
    space |= {name: PUSH[name] if name in PUSH else _distribution(OWN[name]) for name in of_profile}
    first |= {name: getattr(DEFAULT, name) for name in of_profile}

    def tuned(knobs: Knobs) -> ArmConfig:
        values = {knob.name: float(knobs.get(knob.name, knob.on)) for knob in strengths}
        off = {name: regularizer.off_values for name, regularizer in REGULARIZERS.items()}
        on = {part.name: part.strengths(values) for part in parts}
        changes = _overrides(knobs)
        for kind, choice in choices.items():
            options = {name: knobs.get(f"{choice.name}.{name}", value) for name, value in choice.options}
            changes[kind] = CHOSEN[kind].choice(choice.name, **options)
        regularizers = configured(off | on, soft_votes=config.regularizers.soft_votes)
        return replace(config, regularizers=regularizers, **changes)

    return Study(f"tune-{arm}", space, first, tuned, profile_values=of_profile)


def _distribution(search: Search) -> Distribution:
    """Return the distribution for an option's range or choices."""
    if isinstance(search.values[0], float):
        low, high = search.values
        return FloatDistribution(float(low), float(high), log=search.log)
    return CategoricalDistribution(search.values)


def _overrides(knobs: Knobs) -> dict[str, Any]:
    """Return the fields of `ArmConfig` that are set directly by hyperparameters."""
    overrides = {name: knobs[name] for name in (*OWN, *PUSH) if name in knobs}
    return overrides | ({"tau": TAUS[overrides["tau"]]} if "tau" in overrides else {})


STUDIES: dict[str, Callable[[], Study]] = {
    "regularizers": regularizers,
    "regularizers-relative": regularizers_relative,
    "policy": policy,
    "rm": rm,
}
"""Studies by name, except ``tune-arm``, which takes an arm."""


def tunable() -> list[str]:
    """Return the arms that ``tune-arm`` accepts: those with hyperparameters, except controls, whose setting is fixed."""
    return [
        name for name, arm in arms().items() if arm.beta is None and not _is_control(arm) and _tune(name, arm).space
    ]


def _is_control(arm: ArmConfig) -> bool:
    single_term = 0.0 in (arm.emotion_weight, arm.content_weight)
    return arm.shuffle_labels or arm.match_gradient or single_term or (arm.steps == 0 and arm.guidance is None)


def study_of(
    name: str,
    arm: str = "",
    ranges: Sequence[tuple[str, float, float]] = (),
    optimize: OptimizeConfig = DEFAULT,
) -> Study:
    """Return the named study for a profile's policy optimization, with ``ranges`` (hyperparameter, low, high) replacing its own.

    Raises InputError for an unknown study, arm or hyperparameter, for an invalid range, and for one without the paper's value.
    """
    if choose("study", name, [*STUDIES, TUNE]) != TUNE and arm:
        raise InputError(f"--arm is only for {TUNE}", got=f"--study {name} --arm {arm}", fix="leave --arm out")
    try:
        study = tune_arm(choose(f"arm for {TUNE} (--arm)", arm, tunable())) if name == TUNE else STUDIES[name]()
        study = study.on(optimize)
        space = dict(study.space)
        for knob, low, high in ranges:
            distribution = space[choose(f"hyperparameter in study {name} (--range)", knob, space)]
            if isinstance(distribution, CategoricalDistribution):
                got, fix = f"{knob}, one of {described(distribution)}", f"leave out --range {knob}"
                raise InputError("--range is only for numeric hyperparameters", got=got, fix=fix)
            space[knob] = FloatDistribution(low, high, log=distribution.log)
        for knob, distribution in space.items():
            if not contains(distribution, study.paper.get(knob)):
                raise InputError(
                    f"the range of {knob} does not contain the baseline value",
                    got=f"{described(distribution)} without {study.paper.get(knob)}",
                    fix="widen it: the first trial always has the paper's values",
                )
            for end in ends(distribution):
                study.arm({**study.paper, knob: end})  # the config checks its values
    except InputError:
        raise
    except ValueError as error:
        fix = "give LOW below HIGH, above 0 on a log scale, and only values that the setting may have"
        raise InputError("a range is invalid", got=error, fix=fix) from None
    return replace(study, space=space)


def contains(distribution: Distribution, value: Any) -> bool:
    """Return whether a value is in a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return value is not None and distribution.low <= value <= distribution.high


def ends(distribution: Distribution) -> tuple[Any, ...]:
    """Return both ends of a range, or all choices."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return distribution.low, distribution.high


def described(distribution: Distribution) -> str:
    """Return a distribution as text: ``0.05..50 log``, or its choices."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(map(str, distribution.choices))
    return f"{distribution.low!r}..{distribution.high!r}" + (" log" if distribution.log else "")

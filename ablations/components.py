"""The components under study, declared once: the arms, contrasts, checks, studies, tables and figures iterate over `COMPONENTS`.

To study another regulariser, append one `Component`: ``COMPONENTS.append(Component(name="x", label="X", on={...}, off={...}))``.
The list is read when it is needed, never at import.

An arm is the set of components that are on: ``diffro`` has none, ``rrpo`` has exactly the paper's, whatever else the list holds,
and any other set is its names joined in the list's order (``ls_eam``); the paper's three together are written ``rrpo`` there too
(``rrpo_x``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import inf
from typing import Any

from rrpo.config import RegularizerConfig

BASE, RRPO = "diffro", "rrpo"
"""The arms with no component, and with exactly the paper's."""
Strengths = Mapping[str, Any]
"""Fields of `RegularizerConfig` -> values."""
PAPER = RegularizerConfig()
"""The paper's values, which stand in the config alone."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One strength of a component, as studies search it."""

    name: str
    """A field of `RegularizerConfig`, unless `Component.strengths` says otherwise."""
    paper: float
    """The paper's value; the off value of a component that is not the paper's. The first trial of every study has it."""
    low: float
    """Lower end of the range searched."""
    high: float
    """Upper end."""
    log: bool = False
    """Whether the range is searched on a logarithmic scale."""
    limits: tuple[float, float] = (-inf, inf)
    """What the knob can mean at all."""
    surface: bool = False
    """Whether it is an axis of the response surface."""


@dataclass(frozen=True, kw_only=True)
class ManipulationCheck:
    """What a component must move in the reward model to count as tested."""

    scalar: str
    """Name of the scalar."""
    direction: int
    """+1 where the component must raise it, -1 where it must lower it."""
    text: str
    """The measure in words."""
    asked: str = ""
    """Scalar that is 1 for a reward model of which the component's training asked anything, else 0; empty: no such rule."""
    weak: str = ""
    """What is said where most of its reward models have a 0 there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """One regulariser under study."""

    name: str
    """In the names of arms; no underscore."""
    label: str
    """For people."""
    on: Strengths
    """The fields' values where it is on."""
    off: Strengths
    """Their identity values."""
    paper: bool = False
    """Whether it is one of RRPO's own."""
    check: ManipulationCheck | None = None
    """What it must move; None: counts as tested."""
    knobs: tuple[Knob, ...] = ()
    """Its strengths in studies; without any it stays as in RRPO."""
    strengths: Callable[[Mapping[str, float]], Strengths] = dict
    """The fields' values at given values of its knobs; by default knobs are fields."""
    look: tuple[str, Any, str] = ("0.55", "-", "o")
    """Colour, line and marker in figures of its single-component arm."""


def _mixed(knobs: Mapping[str, float]) -> Strengths:
    """EAM's range of dB by its centre and width."""
    centre, half = knobs["mix_db_centre"], knobs["mix_db_width"] / 2
    share = knobs["mix_probability"]
    return {"mix_probability": share, "mix_db_low": centre - half, "mix_db_high": centre + half}


COMPONENTS: list[Component] = [
    Component(
        name="ls",
        label="LS",
        on={"epsilon": PAPER.epsilon},
        off={"epsilon": 0.0},
        paper=True,
        check=ManipulationCheck(scalar="rm_ece", direction=-1, text="ECE"),
        knobs=(Knob(name="epsilon", paper=PAPER.epsilon, low=0.0, high=0.3, limits=(0.0, 1.0), surface=True),),
        look=("#56B4E9", "--", "^"),
    ),
    Component(
        name="eam",
        label="EAM",
        on={"mix_probability": PAPER.mix_probability},
        off={"mix_probability": 0.0},
        paper=True,
        check=ManipulationCheck(scalar="rm_smoothness", direction=+1, text="smoothness along interpolations"),
        knobs=(
            Knob(name="mix_probability", paper=PAPER.mix_probability, low=0.0, high=1.0, limits=(0.0, 1.0)),
            Knob(name="mix_db_centre", paper=(PAPER.mix_db_low + PAPER.mix_db_high) / 2, low=-5.0, high=10.0),
            Knob(
                name="mix_db_width", paper=PAPER.mix_db_high - PAPER.mix_db_low, low=0.0, high=20.0, limits=(0.0, inf)
            ),
        ),
        strengths=_mixed,
        look=("#009E73", "-.", "D"),
    ),
    Component(
        name="adv",
        label="Adv",
        on={"alpha": PAPER.alpha},
        off={"alpha": 0.0},
        paper=True,
        check=ManipulationCheck(
            scalar="rm_pgd_accuracy_0.1",
            direction=+1,
            text="accuracy under PGD at a relative radius of 0.1",
            asked="adv_tested",
            weak="L_adv/L_emo under 1.05 in most fine-tunings",
        ),
        knobs=(
            Knob(name="alpha", paper=PAPER.alpha, low=0.0, high=2.0, limits=(0.0, inf), surface=True),
            Knob(
                name="epsilon_adv",
                paper=PAPER.epsilon_adv,
                low=0.05,
                high=50.0,
                log=True,
                limits=(0.0, inf),
                surface=True,
            ),
        ),
        look=("#E69F00", ":", "v"),
    ),
]
"""In the order of the arms' names."""


def papers() -> list[str]:
    """Names of RRPO's own components."""
    return [component.name for component in COMPONENTS if component.paper]


def arm_of(parts: Iterable[str]) -> str:
    """The arm with exactly these components: ``diffro``, ``ls``, ..., ``ls_eam``, ..., ``rrpo``, ``rrpo_x``."""
    on = set(parts)
    chosen = [component.name for component in COMPONENTS if component.name in on]
    if papers() and on >= set(papers()):
        chosen = [RRPO, *(name for name in chosen if name not in papers())]
    return "_".join(chosen) or BASE


def subsets() -> list[tuple[str, ...]]:
    """All sets of components, by size."""
    names = [component.name for component in COMPONENTS]
    return [chosen for size in range(len(names) + 1) for chosen in combinations(names, size)]


def factorial() -> list[str]:
    """The arms of the 2^k factorial, by the number of components."""
    return [arm_of(on) for on in subsets()]


def singles() -> list[str]:
    """No component, each by itself, RRPO: what is run in every setting of a grid of settings."""
    return [BASE, *(arm_of([component.name]) for component in COMPONENTS), RRPO]


def regularizers(parts: Iterable[str]) -> RegularizerConfig:
    """The declared strengths of the components named, identity for the others (same code path)."""
    on = set(parts)
    chosen = [component.on if component.name in on else component.off for component in COMPONENTS]
    return RegularizerConfig(**{field: value for values in chosen for field, value in values.items()})


def switched_on(config: RegularizerConfig) -> list[str]:
    """Names of the components whose fields are not all at their identity values."""
    return [
        component.name
        for component in COMPONENTS
        if any(getattr(config, field) != value for field, value in component.off.items())
    ]

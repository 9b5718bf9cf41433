"""The components under study: the arms, contrasts, checks, studies, tables and figures iterate over `COMPONENTS`.

A component is a regulariser that is registered in `rrpo.regularizers.REGULARIZERS` and no control of another one
(`Regularizer.control_of`); it declares all that is said of it: to study another, register it. The list is read when it is needed,
never at import.

An arm is the set of components that are on: ``diffro`` has none, ``rrpo`` has exactly the paper's, whatever else the list holds,
and any other set is its names joined in the list's order (``ls_eam``); the paper's three together are written ``rrpo`` there too
(``rrpo_x``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any, overload

from rrpo.config import RegularizerConfig
from rrpo.regularizers import REGULARIZERS, Knob, ManipulationCheck, Regularizer, configured

BASE, RRPO = "diffro", "rrpo"
"""The arms with no component, and with exactly the paper's."""
Strengths = Mapping[str, Any]
"""Fields of a regulariser -> values."""
Look = tuple[str, Any, str]
"""Colour, line and marker."""
LOOKS: dict[str, Look] = {
    "ls": ("#56B4E9", "--", "^"),
    "eam": ("#009E73", "-.", "D"),
    "adv": ("#E69F00", ":", "v"),
}
"""Of the arms with a single one of the paper's components, in figures."""
OTHER_LOOKS: tuple[Look, ...] = (("#CC79A7", "--", "s"), ("#F0E442", "-.", "P"), ("#882255", ":", "X"))
"""Of those with another one, in turn."""


@dataclass(frozen=True, eq=False)
class Component:
    """One regulariser under study, as it is registered."""

    name: str
    """In the names of arms."""
    regularizer: Regularizer
    """With the strengths that it has in arms."""

    @property
    def label(self) -> str:
        """For people."""
        return self.regularizer.label

    @property
    def paper(self) -> bool:
        """Whether it is one of RRPO's own."""
        return self.regularizer.paper

    @property
    def check(self) -> ManipulationCheck | None:
        """What it must move; None: counts as tested."""
        return self.regularizer.check

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """Its strengths in studies; those of a component that is not the paper's are called ``<component>.<strength>``."""
        own = self.regularizer.knobs()
        return own if self.paper else tuple(replace(knob, name=f"{self.name}.{knob.name}") for knob in own)

    @property
    def on(self) -> Strengths:
        """Values of the strengths that switch it, where it is on."""
        return {name: getattr(self.regularizer, name) for name in self.off}

    @property
    def off(self) -> Strengths:
        """Their identity values."""
        return {knob.name: knob.off for knob in self.regularizer.own_knobs() if knob.off is not None}

    def strengths(self, knobs: Mapping[str, float]) -> Strengths:
        """Values of its strengths at given values of `knobs`."""
        own = {known.name: knobs[knob.name] for known, knob in zip(self.regularizer.knobs(), self.knobs, strict=True)}
        return self.regularizer.at(own)

    @property
    def look(self) -> Look:
        """Colour, line and marker in figures of its single-component arm."""
        others = [component.name for component in COMPONENTS if component.name not in LOOKS]
        return LOOKS.get(self.name) or OTHER_LOOKS[others.index(self.name) % len(OTHER_LOOKS)]


class _Registered(Sequence[Component]):
    """The registry's regularisers as components, always as they are now."""

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Component]:
        return (_component(name, found) for name, found in REGULARIZERS.items() if not found.control_of)

    @overload
    def __getitem__(self, index: int) -> Component: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Component]: ...
    def __getitem__(self, index: int | slice) -> Component | Sequence[Component]:
        return list(self)[index]


@cache
def _component(name: str, regularizer: Regularizer) -> Component:
    return Component(name, regularizer)


COMPONENTS: Sequence[Component] = _Registered()
"""In the order of the arms' names: the paper's, then others as they were registered."""


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
    return configured({c.name: c.on if c.name in on else c.off for c in COMPONENTS})

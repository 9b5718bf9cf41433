"""The components under study: the arms, contrasts, checks, studies, tables and figures iterate over `COMPONENTS`.

A component is a regulariser that is registered in `rrpo.regularizers.REGULARIZERS` and no control of another one
(`Regularizer.control_of`); it declares all that is said of it: to study another, register it. The list is read when it is needed,
never at import.

How arms are named after their components, `rrpo.arms` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any, overload

from rrpo.arms import BASE, RRPO, name_of
from rrpo.regularizers import REGULARIZERS, Knob, ManipulationCheck, Regularizer

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
        return self.regularizer.on_values

    @property
    def off(self) -> Strengths:
        """Their identity values."""
        return self.regularizer.off_values

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
        return (component(name) for name, found in REGULARIZERS.items() if not found.control_of)

    @overload
    def __getitem__(self, index: int) -> Component: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Component]: ...
    def __getitem__(self, index: int | slice) -> Component | Sequence[Component]:
        return list(self)[index]


def component(name: str) -> Component:
    """A registered regulariser as a component, controls too."""
    return _component(name, REGULARIZERS[name])


@cache
def _component(name: str, regularizer: Regularizer) -> Component:
    return Component(name, regularizer)


COMPONENTS: Sequence[Component] = _Registered()
"""In the order of the arms' names: the paper's, then others as they were registered."""


def subsets() -> list[tuple[str, ...]]:
    """All sets of components, by size."""
    names = [component.name for component in COMPONENTS]
    return [chosen for size in range(len(names) + 1) for chosen in combinations(names, size)]


def factorial() -> list[str]:
    """The arms of the 2^k factorial, by the number of components."""
    return [name_of(on) for on in subsets()]


def singles() -> list[str]:
    """No component, each by itself, RRPO: what is run in every setting of a grid of settings."""
    return [BASE, *(name_of([component.name]) for component in COMPONENTS), RRPO]

"""The components under study. Arms, contrasts, checks, studies, tables and figures iterate over `COMPONENTS`.

A component is a regularizer in `rrpo.regularizers.REGULARIZERS` that is not a control of another one (`Regularizer.control_of`).
To study another component, register it; its class declares everything else. `COMPONENTS` reads the registry when it is used,
never at import.

`rrpo.arms` defines how arms are named after their components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from rrpo.arms import BASE, RRPO, factorial_arm, name_of
from rrpo.regularizers import REGULARIZERS, Knob, ManipulationCheck, Regularizer

Strengths = Mapping[str, Any]
"""Field of a regularizer -> value."""


@dataclass(frozen=True)
class Component:
    """A registered regularizer under study."""

    name: str
    """Name, as used in the names of arms."""
    regularizer: Regularizer
    """The regularizer with its strengths in arms."""

    @property
    def label(self) -> str:
        """Readable name."""
        return self.regularizer.label

    @property
    def paper(self) -> bool:
        """Whether it is a component of RRPO in the paper."""
        return self.regularizer.paper

    @property
    def check(self) -> ManipulationCheck | None:
        """Its manipulation check; None: it always counts as tested."""
        return self.regularizer.check

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """Strengths that studies tune; those of a component outside the paper are named ``<component>.<strength>``."""
        knobs = self.regularizer.knobs()
        return knobs if self.paper else tuple(replace(knob, name=f"{self.name}.{knob.name}") for knob in knobs)

    def strengths(self, knobs: Mapping[str, float]) -> Strengths:
        """Return the values of its strengths for given values of `knobs`."""
        values = {
            known.name: knobs[knob.name] for known, knob in zip(self.regularizer.knobs(), self.knobs, strict=True)
        }
        return self.regularizer.at(values)


class _Registered(Sequence[Component]):
    """A live view of the registered regularizers as components."""

    def __len__(self) -> int:
        return len(self[:])

    def __getitem__(self, index: Any) -> Any:
        return [component(name) for name, regularizer in REGULARIZERS.items() if not regularizer.control_of][index]


def component(name: str) -> Component:
    """Return a registered regularizer, or a control of one, as a component."""
    return Component(name, REGULARIZERS[name])


COMPONENTS: Sequence[Component] = _Registered()
"""The components in the order used in arm names: the paper's first, then others in order of registration."""


def subsets() -> list[tuple[str, ...]]:
    """Return all subsets of the components, by size."""
    names = [component.name for component in COMPONENTS]
    return [subset for size in range(len(names) + 1) for subset in combinations(names, size)]


def factorial() -> list[str]:
    """Return the names of the arms of the 2^k factorial, by number of components.

    Raises:
        InputError: Another arm is registered under one of these names.
    """
    return [factorial_arm(on) for on in subsets()]


def singles() -> list[str]:
    """Return the names of the arms run in every setting of a grid of settings: no component, each component alone, RRPO."""
    return [BASE, *(name_of([component.name]) for component in COMPONENTS), RRPO]

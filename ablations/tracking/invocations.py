"""The invocations of a grid (which arms and seeds each planned), and attempts at cells that have no result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.failures import KINDS, Lost
from ablations.grids import DEVELOPMENT, split_label
from ablations.stats.family import declared, labelled
from ablations.tracking.records import TAG_FAILED, TAG_FAILURE_KIND, TAG_PROFILE, TAG_WORLD_HASH, Record
from rrpo.experiment.cell import Cell

PARTIAL = "partial"
"""State of a cell whose run was left unfinished."""


class Attempt(Record):
    """A cell's run without a result."""

    @property
    def lost(self) -> Lost | None:
        """Why it failed; None if the run was left unfinished."""
        kind = self.tags.get(TAG_FAILURE_KIND, "bug")
        return Lost(kind if kind in KINDS else "bug", self.tags[TAG_FAILED]) if TAG_FAILED in self.tags else None

    @property
    def state(self) -> str:
        """The kind of failure, or `PARTIAL`."""
        return self.lost.kind if self.lost else PARTIAL


@dataclass(frozen=True)
class Invocation:
    """A parent run: the arms and seeds that one run of `ablations.run` planned."""

    profile: str
    """Name of the profile."""
    world_hash: str
    """Hash of the world."""
    plan: Mapping[str, tuple[int, ...]]
    """Planned arm -> its seeds. Some arms, such as controls, are run on fewer seeds than the others."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """All planned seeds, ascending."""
        return tuple(sorted({seed for seeds in self.plan.values() for seed in seeds}))

    def params(self) -> dict[str, str]:
        """Return the params of the parent run, which `invocation` reads back."""
        fewer = [f"{arm}:{_joined(seeds)}" for arm, seeds in self.plan.items() if len(seeds) < len(self.seeds)]
        params = {"arms": ",".join(self.plan), "seeds": _joined(self.seeds)}
        return params | ({"fewer": ";".join(fewer)} if fewer else {})


def invocation(run: Any) -> Invocation:
    """Read an MLflow run of kind ``parent``."""
    params = run.data.params
    fewer = {arm: seeds for arm, _, seeds in (part.partition(":") for part in params.get("fewer", "").split(";"))}
    arms = filter(None, params.get("arms", "").split(","))
    return Invocation(
        profile=run.data.tags.get(TAG_PROFILE, ""),
        world_hash=run.data.tags.get(TAG_WORLD_HASH, ""),
        plan={arm: _numbers(fewer.get(arm, params.get("seeds", ""))) for arm in arms},
    )


def plan_invocation(cells: Sequence[Cell]) -> Invocation:
    """Return the invocation that plans these cells; it has no run yet."""
    plan: dict[str, tuple[int, ...]] = {}
    for cell in cells:
        plan[cell.label] = (*plan.get(cell.label, ()), cell.seed)
    return Invocation(cells[0].profile.name, cells[0].world_hash, plan)


def _joined(seeds: Iterable[int]) -> str:
    return ",".join(map(str, seeds))


def _numbers(seeds: str) -> tuple[int, ...]:
    return tuple(int(seed) for seed in seeds.split(",") if seed)


def reported(seeds: Iterable[int]) -> set[int]:
    """Return the seeds that a report pools. Development seeds, which were used for tuning, count only if there are no others."""
    all_seeds = set(seeds)
    return {seed for seed in all_seeds if seed < DEVELOPMENT} or all_seeds


def of_kind(invocations: Sequence[Invocation], *, development: bool) -> list[Invocation]:
    """Restrict invocations to their development seeds, or to their other seeds."""

    def restrict(seeds: Iterable[int]) -> tuple[int, ...]:
        return tuple(seed for seed in seeds if (seed >= DEVELOPMENT) == development)

    return [replace(each, plan={arm: restrict(seeds) for arm, seeds in each.plan.items()}) for each in invocations]


def needed(labels: Iterable[str]) -> set[str]:
    """Return the labels that the tested contrasts of a grid need; all ``labels`` if the grid tests no contrast."""
    all_labels = set(labels)
    tested = {
        label
        for setting, contrasts in declared(all_labels).items()
        for weights in contrasts.values()
        for label in labelled(weights, setting)
    }
    return tested or all_labels


def planned_seeds(
    invocations: Sequence[Invocation], labels: Iterable[str] = (), setting: str | None = None
) -> list[int]:
    """Return the total number of planned seeds after each invocation, as distinct values in ascending order.

    The last value is the current plan; earlier values are smaller plans that were raised. A seed counts once every arm that the
    grid's tests need is planned for it, so a pilot of some arms is not a plan. Development seeds count only if there are no
    others.

    Args:
        invocations: Invocations of one grid, oldest first.
        labels: Labels of the whole grid, in addition to those that the invocations planned.
        setting: Count the seeds of one setting, for which its own arms suffice; None: of all of them.
    """
    seeds = reported(seed for invocation in invocations for seed in invocation.seeds)
    required = needed({*labels, *(arm for invocation in invocations for arm in invocation.plan)})
    if setting is not None:
        required = {label for label in required if split_label(label)[1] == setting}
    arms: dict[int, set[str]] = defaultdict(set)
    totals = set()
    for invocation in invocations:
        for arm, planned in invocation.plan.items():
            for seed in seeds.intersection(planned):
                arms[seed].add(arm)
        totals.add(sum(required <= present for present in arms.values()))
    return sorted(totals - {0})

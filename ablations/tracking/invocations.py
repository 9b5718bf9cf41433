"""The invocations of a grid (which arms and seeds each planned), and attempts at cells that have no result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ablations.execution.failures import KINDS, Lost
from ablations.stats.family import declared
from ablations.tracking.records import TAG_FAILED, TAG_FAILURE_KIND, TAG_PROFILE, TAG_WORLD_HASH, Record
from rrpo.pipeline.cell import Cell

DEVELOPMENT = 1000
"""The first development seed. Seeds below it, from `ablations.grids.FIRST_SEED` on, are reserved for reports."""


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

    run_id: str
    """Id of the MLflow run."""
    profile: str
    """Name of the profile."""
    world_hash: str
    """Hash of the world."""
    arms: tuple[str, ...]
    """Planned arms."""
    seeds: tuple[int, ...]
    """Planned seeds of each arm, except for the arms in `fewer`."""
    fewer: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Arm -> its seeds, for arms that are not run on all seeds, such as controls."""

    def arms_of(self, seed: int) -> set[str]:
        """Return the arms planned for a seed."""
        return {arm for arm in self.arms if seed in self.fewer.get(arm, self.seeds)}

    def params(self) -> dict[str, str]:
        """Return the params of the parent run, which `invocation` reads back."""
        fewer = ";".join(f"{arm}:{_joined(seeds)}" for arm, seeds in self.fewer.items())
        return {"arms": ",".join(self.arms), "seeds": _joined(self.seeds)} | ({"fewer": fewer} if fewer else {})


def invocation(run: Any) -> Invocation:
    """Read an MLflow run of kind ``parent``."""
    fewer = (part.partition(":") for part in run.data.params.get("fewer", "").split(";") if part)
    return Invocation(
        run_id=str(run.info.run_id),
        profile=run.data.tags.get(TAG_PROFILE, ""),
        world_hash=run.data.tags.get(TAG_WORLD_HASH, ""),
        arms=tuple(filter(None, run.data.params.get("arms", "").split(","))),
        seeds=_numbers(run.data.params.get("seeds", "")),
        fewer={arm: _numbers(seeds) for arm, _, seeds in fewer},
    )


def plan_invocation(cells: Sequence[Cell]) -> Invocation:
    """Return the invocation that plans these cells; it has no run yet."""
    first_cell, seeds = cells[0], sorted({cell.seed for cell in cells})
    seeds_of_arm: dict[str, list[int]] = {}
    for cell in cells:
        seeds_of_arm.setdefault(cell.label, []).append(cell.seed)
    fewer = {arm: tuple(arm_seeds) for arm, arm_seeds in seeds_of_arm.items() if len(arm_seeds) < len(seeds)}
    return Invocation("", first_cell.profile.name, first_cell.world_hash, tuple(seeds_of_arm), tuple(seeds), fewer)


def _joined(seeds: Iterable[int]) -> str:
    return ",".join(map(str, seeds))


def _numbers(seeds: str) -> tuple[int, ...]:
    return tuple(int(seed) for seed in seeds.split(",") if seed)


def reported(seeds: Iterable[int]) -> set[int]:
    """Return the seeds that a report pools. Development seeds, which were used for tuning, count only if there are no others."""
    all_seeds = set(seeds)
    return {seed for seed in all_seeds if seed < DEVELOPMENT} or all_seeds


def on(invocations: Sequence[Invocation], *, development: bool) -> list[Invocation]:
    """Restrict invocations to their development seeds, or to their other seeds."""

    def restrict(seeds: Iterable[int]) -> tuple[int, ...]:
        return tuple(seed for seed in seeds if (seed >= DEVELOPMENT) == development)

    return [
        replace(plan, seeds=restrict(plan.seeds), fewer={arm: restrict(seeds) for arm, seeds in plan.fewer.items()})
        for plan in invocations
    ]


def needed(labels: Iterable[str]) -> set[str]:
    """Return the labels that the tested contrasts of a grid need; all ``labels`` if the grid tests no contrast."""
    all_labels = set(labels)
    tested = {
        f"{arm}@{setting}" if setting else arm
        for setting, contrasts in declared(all_labels).items()
        for weights in contrasts.values()
        for arm in weights
    }
    return tested or all_labels


def planned_seeds(invocations: Sequence[Invocation], labels: Iterable[str] = ()) -> list[int]:
    """Return the total number of planned seeds after each invocation, as distinct values in ascending order.

    The last value is the current plan; earlier values are smaller plans that were raised. A seed counts once every arm that the
    grid's tests need is planned for it, so a pilot of some arms is not a plan. Development seeds count only if there are no
    others.

    Args:
        invocations: Invocations of one grid, oldest first.
        labels: Labels of the whole grid, in addition to those that the invocations planned.
    """
    seeds = reported(seed for plan in invocations for seed in plan.seeds)
    required = needed({*labels, *(arm for plan in invocations for arm in plan.arms)})
    arms: dict[int, set[str]] = defaultdict(set)
    totals = set()
    for plan in invocations:
        for seed in seeds & set(plan.seeds):
            arms[seed] |= plan.arms_of(seed)
        totals.add(sum(required <= planned for planned in arms.values()))
    return sorted(totals - {0})

"""What was asked for and what was tried: the invocations of a grid, and runs of cells that hold no result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ablations.execution.failures import KINDS, Lost
from ablations.stats.family import declared
from ablations.tracking.records import (
    TAG_ARM,
    TAG_CELL_HASH,
    TAG_FAILED,
    TAG_FAILURE_KIND,
    TAG_PROFILE,
    TAG_SEED,
    TAG_WORLD_HASH,
)
from rrpo.pipeline.cell import Cell

DEVELOPMENT = 1000
"""The first development seed; those below, from `ablations.grids.FIRST_SEED` on, are for reports alone."""


@dataclass(frozen=True)
class Attempt:
    """A cell's run that holds no result."""

    label: str
    """The arm's name."""
    seed: int
    """The experiment's seed."""
    profile: str
    """Name of the size of world and models."""
    world_hash: str
    """The world it was to be run in."""
    cell_hash: str
    """The result it was to give."""
    lost: Lost | None
    """Why it failed; None when it was left half written."""


@dataclass(frozen=True)
class Invocation:
    """A parent run: what one start of `ablations.run` was asked for."""

    run_id: str
    """MLflow run."""
    profile: str
    """Name of the size of world and models."""
    world_hash: str
    """The world it ran in."""
    arms: tuple[str, ...]
    """Arms planned."""
    seeds: tuple[int, ...]
    """Seeds planned for each of them, unless `fewer` says otherwise."""
    fewer: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The seeds of arms that have not all of them, such as controls."""

    def arms_of(self, seed: int) -> set[str]:
        """Arms planned for one of the seeds."""
        return {arm for arm in self.arms if seed in self.fewer.get(arm, self.seeds)}

    def params(self) -> dict[str, str]:
        """Of the parent run; `invocation` reads them."""
        fewer = ";".join(f"{arm}:{_text(seeds)}" for arm, seeds in self.fewer.items())
        return {"arms": ",".join(self.arms), "seeds": _text(self.seeds)} | ({"fewer": fewer} if fewer else {})


def attempt(run: Any) -> Attempt:
    """An MLflow run of a cell, read as one without a result."""
    tags = run.data.tags
    kind = tags.get(TAG_FAILURE_KIND, "bug")
    lost = Lost(kind if kind in KINDS else "bug", tags[TAG_FAILED]) if TAG_FAILED in tags else None
    return Attempt(
        tags[TAG_ARM], int(tags[TAG_SEED]), tags[TAG_PROFILE], tags[TAG_WORLD_HASH], tags[TAG_CELL_HASH], lost
    )


def invocation(run: Any) -> Invocation:
    """An MLflow run of kind ``parent``."""
    fewer = (part.partition(":") for part in run.data.params.get("fewer", "").split(";") if part)
    return Invocation(
        run_id=str(run.info.run_id),
        profile=run.data.tags.get(TAG_PROFILE, ""),
        world_hash=run.data.tags.get(TAG_WORLD_HASH, ""),
        arms=tuple(filter(None, run.data.params.get("arms", "").split(","))),
        seeds=_numbers(run.data.params.get("seeds", "")),
        fewer={arm: _numbers(seeds) for arm, _, seeds in fewer},
    )


def asked(cells: Sequence[Cell]) -> Invocation:
    """What a command that is asked for these cells plans; before it is a run."""
    first, seeds = cells[0], sorted({cell.seed for cell in cells})
    own: dict[str, list[int]] = {}
    for cell in cells:
        own.setdefault(cell.label, []).append(cell.seed)
    fewer = {arm: tuple(mine) for arm, mine in own.items() if len(mine) < len(seeds)}
    return Invocation("", first.profile.name, first.world_hash, tuple(own), tuple(seeds), fewer)


def _text(seeds: Iterable[int]) -> str:
    return ",".join(map(str, seeds))


def _numbers(seeds: str) -> tuple[int, ...]:
    return tuple(int(seed) for seed in seeds.split(",") if seed)


def reported(seeds: Iterable[int]) -> set[int]:
    """The seeds that a report pools: development seeds, on which things were tuned, only where there are no others."""
    every = set(seeds)
    return {seed for seed in every if seed < DEVELOPMENT} or every


def on(invocations: Sequence[Invocation], *, development: bool) -> list[Invocation]:
    """The invocations with their development seeds alone, or without them."""

    def kept(seeds: Iterable[int]) -> tuple[int, ...]:
        return tuple(seed for seed in seeds if (seed >= DEVELOPMENT) == development)

    return [
        replace(one, seeds=kept(one.seeds), fewer={arm: kept(seeds) for arm, seeds in one.fewer.items()})
        for one in invocations
    ]


def needed(labels: Iterable[str]) -> set[str]:
    """The labels of the contrasts that are tested in a grid of these; all of them in a grid without any."""
    every = set(labels)
    found = {
        f"{arm}@{place}" if place else arm
        for place, contrasts in declared(every).items()
        for weights in contrasts.values()
        for arm in weights
    }
    return found or every


def planned_seeds(invocations: Sequence[Invocation], labels: Iterable[str] = ()) -> list[int]:
    """The number of seeds planned in all, last; before it any smaller one that was planned first, rising.

    A seed counts once all that the tests of a grid of ``labels`` (beside those asked for) need is planned for it, so a pilot of
    some arms is no plan. Development seeds count only where there are no others.
    """
    seeds = reported(seed for one in invocations for seed in one.seeds)
    wanted = needed({*labels, *(arm for one in invocations for arm in one.arms)})
    arms: dict[int, set[str]] = defaultdict(set)
    found = set()
    for one in invocations:
        for seed in seeds & set(one.seeds):
            arms[seed] |= one.arms_of(seed)
        found.add(sum(wanted <= there for there in arms.values()))
    return sorted(found - {0})

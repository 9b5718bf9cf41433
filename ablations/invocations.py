"""What was asked for and what was tried: the invocations of a grid, and runs of cells that hold no result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.components import singles
from ablations.failures import KINDS, Lost
from ablations.family import family
from ablations.grids import split_label
from ablations.records import (
    PAIR_SPREAD,
    TAG_ARM,
    TAG_CELL_HASH,
    TAG_FAILED,
    TAG_FAILURE_KIND,
    TAG_PROFILE,
    TAG_SEED,
    TAG_WORLD_HASH,
)

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
    """Seeds planned for each of them."""
    looks: tuple[int, ...] = ()
    """Numbers of seeds in all at which results were declared to be read; empty: at all that are planned."""
    spread: float | None = None
    """`records.PAIR_SPREAD`, None before three seeds were complete."""


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
    return Invocation(
        run_id=str(run.info.run_id),
        profile=run.data.tags.get(TAG_PROFILE, ""),
        world_hash=run.data.tags.get(TAG_WORLD_HASH, ""),
        arms=tuple(filter(None, run.data.params.get("arms", "").split(","))),
        seeds=_numbers(run.data.params.get("seeds", "")),
        looks=_numbers(run.data.params.get("looks", "")),
        spread=run.data.metrics.get(PAIR_SPREAD),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def reported(seeds: Iterable[int]) -> set[int]:
    """The seeds that a report pools: development seeds, on which things were tuned, only where there are no others."""
    every = set(seeds)
    return {seed for seed in every if seed < DEVELOPMENT} or every


def on(invocations: Sequence[Invocation], *, development: bool) -> list[Invocation]:
    """The invocations with their development seeds alone, or without them."""
    return [replace(i, seeds=tuple(s for s in i.seeds if (s >= DEVELOPMENT) == development)) for i in invocations]


def looks(invocations: Sequence[Invocation]) -> list[int]:
    """The numbers of seeds at which results may be read, rising: what invocations declared, else all seeds planned so far.

    A seed counts once the whole primary family is planned for it, or in a grid of settings what stands in for it there, so pilots
    of some arms are no looks; in a grid without the family every seed does. Development seeds count only where there are no
    others.
    """
    return sorted(set().union(*_declared(invocations)))


def ahead(invocations: Sequence[Invocation]) -> int:
    """How many of the `looks` were declared before the first result: those of the first invocation that declares any."""
    return len(next(iter(_declared(invocations)), ()))


def planned_seeds(invocations: Sequence[Invocation]) -> int:
    """Seeds planned in all, counted as for `looks`."""
    return max(_planned(invocations), default=0)


def _declared(invocations: Sequence[Invocation]) -> list[set[int]]:
    """What each invocation declares, oldest first, of those after which the family is planned for some seed."""
    pairs = zip(invocations, _planned(invocations), strict=True)
    return [set(one.looks) or {n} for one, n in pairs if n]


def _planned(invocations: Sequence[Invocation]) -> list[int]:
    """Seeds for which the family is planned after each invocation; 0 for one that holds no seed which counts."""
    seeds = reported(seed for one in invocations for seed in one.seeds)
    every = {arm for one in invocations for arm in one.arms}
    whole = {arm for weights in family().values() for arm in weights}
    places = {split_label(label)[1] for label in every} - {""}
    in_settings = {f"{arm}@{place}" for arm in singles() for place in places}
    needed = next((wanted for wanted in (whole, in_settings) if wanted <= every), set())
    arms: dict[int, set[str]] = defaultdict(set)
    found = []
    for one in invocations:
        own = seeds & set(one.seeds)
        for seed in own:
            arms[seed] |= set(one.arms)
        found.append(sum(needed <= there for there in arms.values()) if own else 0)
    return found

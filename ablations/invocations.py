"""What was asked for and what was tried: the invocations of a grid, and runs of cells that hold no result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ablations.failures import KINDS, Lost
from ablations.records import (
    TAG_ARM,
    TAG_CELL_HASH,
    TAG_FAILED,
    TAG_FAILURE_KIND,
    TAG_PROFILE,
    TAG_SEED,
    TAG_WORLD_HASH,
)


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
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def looks(invocations: Sequence[Invocation]) -> list[int]:
    """The numbers of seeds at which results may be read, rising: what invocations declared, else all seeds planned so far."""
    seeds: set[int] = set()
    counts: set[int] = set()
    for one in invocations:
        seeds |= set(one.seeds)
        counts |= set(one.looks) or {len(seeds)}
    return sorted(counts - {0})


def ahead(invocations: Sequence[Invocation]) -> int:
    """How many of the `looks` were declared before the first result: those of the first invocation."""
    return len(looks(invocations[:1]))

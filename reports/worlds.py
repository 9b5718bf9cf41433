"""RRPO - DiffRO in every world of a grid (`ablations.run --world`): whether the answer holds beyond one base policy.

A world has its own speakers, texts, codec, judges and base policy. Each is estimated by itself, seeds of different worlds are
never pooled, and nothing is tested.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import N
from ablations.stats.contrasts import OVERALL, overall
from ablations.stats.family import BESIDE, DIVERGED, PRIMARY_OUTCOME, primary
from ablations.stats.statistics import Interval
from reports.effects import estimates
from reports.loading import DIVERGED as LOST
from reports.loading import Elsewhere, Selection, world_name

Estimates = dict[Column, Interval]


def by_world(selection: Selection, score: float = DIVERGED) -> dict[str, Estimates]:
    """Return world -> column of an outcome -> mean of RRPO - DiffRO; empty if there are no other worlds.

    The selection's own world is the first. Worlds without a seed that has both arms are left out. ``score`` is the primary
    outcome of a diverged cell; NaN excludes its seed.
    """
    weights = overall()
    arms = {arm for contrast in weights.values() for arm in contrast}
    if not selection.elsewhere or not arms <= set(selection.arms):
        return {}
    first = selection.records[0]
    own = world_name(first.config.get("profile.world.seed", ""), first.world_hash)
    worlds = {own: Elsewhere(selection.records, selection.diverged), **selection.elsewhere}
    by_name: dict[str, Estimates] = {}
    for name, world in worlds.items():
        records = tuple(record for record in world.records if record.label in arms)
        lost = dict.fromkeys((key for key in world.diverged if key[0] in arms), LOST)
        seeds = sorted({record.seed for record in records} | {seed for _, seed in lost})
        part = replace(selection, records=records, lost=lost)
        outcomes = map(find, (PRIMARY_OUTCOME, *BESIDE))
        by_name[name] = estimates(part, weights, outcomes, seeds, score)[OVERALL]
    known = {name: means for name, means in by_name.items() if _primary(means).n}
    return known if len(known) > 1 else {}


def _primary(means: Estimates) -> Interval:
    return next(mean for column, mean in means.items() if column.name == PRIMARY_OUTCOME)


def span(selection: Selection, score: float = DIVERGED) -> str:
    """Return the range of the mean primary outcome over worlds as a part of the answer; empty for a single world."""
    means = [_primary(of_world) for of_world in by_world(selection, score).values()]
    if not means:
        return ""
    low, high = (f"{100 * value:+z.1f}" for value in (min(m.mean for m in means), max(m.mean for m in means)))
    return f"over {len(means)} worlds, {OVERALL} ranges from {low} to {high} points (n = {_listed(m.n for m in means)})"


def _listed(counts: Iterable[int]) -> str:
    return ", ".join(map(str, counts))


def sheet(selection: Selection) -> Sheet | None:
    """Return a table of RRPO - DiffRO with one row per world; None for a single world."""
    rows: list[dict[Column, Value]] = [
        {Column("world", "world"): name, N: float(_primary(means).n), **means}
        for name, means in by_world(selection).items()
    ]
    note = (
        f"{OVERALL} within seeds at the last update, in each world by itself, mean ± half the 95 % t-interval; "
        f"{primary().label} and the outcomes beside it. Estimates, not tested. Diverged cells count as {primary().label} 0 "
        "and have no other outcome."
    )
    return Sheet.of("worlds", "Every world", rows, note)

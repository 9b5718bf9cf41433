"""RRPO - DiffRO in every world of a grid (`ablations.run --world`): whether the answer holds beyond one base policy.

A world has its own speakers, texts, codec, judges and base policy. Each is estimated by itself, seeds of different worlds are
never pooled, and nothing is tested.
"""

from __future__ import annotations

from dataclasses import replace

from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import N
from ablations.stats.contrasts import OVERALL, overall
from ablations.stats.family import BESIDE, DIVERGED, primary
from ablations.stats.statistics import Interval
from reports.effects import difference_column, estimates
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
    worlds = {own: Elsewhere(selection.records, selection.lost), **selection.elsewhere}
    by_name: dict[str, Estimates] = {}
    for name, world in worlds.items():
        records = tuple(record for record in world.records if record.label in arms)
        part = replace(selection, records=records, lost=world.lost)
        outcomes = [primary(), *map(find, BESIDE)]
        by_name[name] = estimates(part, weights, outcomes, part.seeds(()), score)[OVERALL]
    known = {name: means for name, means in by_name.items() if means[difference_column(primary())].n}
    return known if len(known) > 1 else {}


def span(selection: Selection, score: float = DIVERGED) -> str:
    """Return the range of the mean primary outcome over worlds as a part of the answer; empty for a single world."""
    means = [of_world[difference_column(primary())] for of_world in by_world(selection, score).values()]
    if not means:
        return ""
    low, high = (f"{100 * value:+z.1f}" for value in (min(m.mean for m in means), max(m.mean for m in means)))
    n = ", ".join(str(m.n) for m in means)
    unfinished = any(other.unfinished for other in selection.elsewhere.values())
    interim = "; not all planned cells are complete" if unfinished else ""
    return f"over {len(means)} worlds, {OVERALL} ranges from {low} to {high} points (n = {n}{interim})"


def sheet(selection: Selection) -> Sheet | None:
    """Return a table of RRPO - DiffRO with one row per world; None for a single world."""
    rows: list[dict[Column, Value]] = [
        {Column("world", "world"): name, N: float(means[difference_column(primary())].n), **means}
        for name, means in by_world(selection).items()
    ]
    note = (
        f"{OVERALL} within seeds at the last update, in each world by itself, mean ± half the 95 % t-interval; "
        f"{primary().label} and the outcomes beside it. Estimates, not tested. Diverged cells count as {primary().label} 0 "
        "and have no other outcome."
    )
    return Sheet.of("worlds", "Every world", rows, note)

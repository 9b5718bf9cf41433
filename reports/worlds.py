"""RRPO - DiffRO in every world of a grid (`ablations.run --world`): whether the answer holds beyond one base policy.

A world has its own speakers, texts, codec, judges and base policy. Each is estimated by itself, seeds of different worlds are
never pooled, and nothing is tested.
"""

from __future__ import annotations

from dataclasses import replace

from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value, show
from ablations.rendering.summary import N, over_seeds, seeds_of
from ablations.stats.contrasts import OVERALL, SFT, overall
from ablations.stats.family import BESIDE, DIVERGED, primary
from ablations.stats.statistics import Interval
from reports.effects import estimates, of_primary
from reports.loading import Elsewhere, Selection, world_name
from rrpo.arms import BASE, RRPO

Estimates = dict[Column, Interval]


def parts(selection: Selection) -> dict[str, Selection]:
    """Return world -> the selection with its cells only, the selection's own world first; empty if there are no other worlds."""
    if not selection.elsewhere:
        return {}
    first = selection.records[0]
    own = world_name(first.world, first.world_hash)
    worlds = {own: Elsewhere(selection.records, selection.lost), **selection.elsewhere}
    return {name: replace(selection, records=world.records, lost=world.lost) for name, world in worlds.items()}


def by_world(selection: Selection, score: float = DIVERGED) -> dict[str, Estimates]:
    """Return world -> column of an outcome -> mean of RRPO - DiffRO; empty if there are no other worlds.

    The selection's own world is the first. Worlds without a seed that has both arms are left out. ``score`` is the primary
    outcome of a diverged cell; NaN excludes its seed.
    """
    weights = overall()
    arms = {arm for contrast in weights.values() for arm in contrast}
    if not arms <= set(selection.arms):
        return {}
    outcomes = [primary(), *map(find, BESIDE)]
    by_name = {
        name: estimates(part, weights, outcomes, part.tested_seeds, score)[OVERALL]
        for name, part in parts(selection).items()
    }
    known = {name: means for name, means in by_name.items() if of_primary(means).n}
    return known if len(known) > 1 else {}


def span(selection: Selection, score: float = DIVERGED) -> str:
    """Return RRPO - DiffRO in each world as a part of the answer; empty for a single world."""
    means = [of_primary(of_world) for of_world in by_world(selection, score).values()]
    if not means:
        return ""
    shown = [f"{show(m, 'gain')} ({m.n} seed{'s' if m.n > 1 else ''})" for m in means]
    unfinished = any(other.unfinished for other in selection.elsewhere.values())
    interim = "; not all planned cells are complete" if unfinished else ""
    in_words = f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"in {len(means)} worlds, {OVERALL} is {in_words} points (unadjusted 95 % intervals{interim})"


def levels(part: Selection) -> dict[Column, Interval]:
    """Return the primary outcome of SFT, DiffRO and RRPO in one world, and SFT's phone errors."""
    outcomes = {primary(): (SFT, BASE, RRPO), find("phone_error_rate"): (SFT,)}
    return {
        Column(f"{arm}_{outcome.name}", f"{arm}, {outcome.heading}", outcome.unit): over_seeds(
            outcome, part.tested_of(arm)
        )
        for outcome, arms in outcomes.items()
        for arm in arms
    }


def sheet(selection: Selection) -> Sheet | None:
    """Return a table of RRPO - DiffRO with one row per world; None for a single world."""
    cells = parts(selection)
    rows: list[dict[Column, Value]] = [
        {
            Column("world", "world"): name,
            N: seeds_of(means.values()),
            **means,
            **levels(cells[name]),
        }
        for name, means in by_world(selection).items()
    ]
    note = (
        f"{OVERALL} within seeds at the last update, in each world by itself, mean ± half the unadjusted 95 % t-interval; "
        f"{primary().label} and the outcomes beside it; then the arms' own means, which show whether SFT is intelligible "
        f"there and whether DiffRO loses anything. Estimates, not tested. Diverged cells count as {primary().label} 0 in "
        "differences, and have no other outcome."
    )
    others = [f"Of {name}: {other.counted}." for name, other in selection.elsewhere.items()]
    return Sheet.of("worlds", "Every world", rows, note, f"First world: {selection.counted}", *others)

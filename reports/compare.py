"""``python -m reports.compare A B``: compare the same arms in two grids. Descriptive: nothing is tested.

Exit status: 0, or 2 for bad input.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import Mixed
from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import ARM, over_seeds, redraws
from ablations.stats.family import PRIMARY_OUTCOME
from ablations.stats.statistics import Interval, t_interval
from reports.loading import Selection, select
from reports.writers import FORMATS
from rrpo.commands import Plugin, program
from rrpo.errors import InputError

app, main = program("reports.compare")


@app.command()
def command(
    first: Annotated[str, typer.Argument(help="First grid.")],
    second: Annotated[str, typer.Argument(help="Second grid.")],
    runs_dir: Annotated[Path, typer.Option(help="Runs folder of the first grid.")] = Path("runs"),
    other_runs_dir: Annotated[
        Path | None, typer.Option(help="Runs folder of the second grid. Default: the same.", show_default=False)
    ] = None,
    metric: Annotated[str, typer.Option(help="Measure to compare.")] = PRIMARY_OUTCOME,
    plugin: Plugin = None,
    profile: Annotated[str | None, typer.Option(help="Profile, if a grid was run with several.")] = None,
    world: Annotated[str, typer.Option(help="World of the first grid, by the beginning of its hash.")] = "",
    other_world: Annotated[str, typer.Option(help="World of the second grid, by the beginning of its hash.")] = "",
    mixed: Mixed = False,
) -> None:
    """Print a measure of the arms that two grids share, and its difference."""
    a = select(runs_dir, first, profile, world, mixed=mixed)
    b = select(other_runs_dir or runs_dir, second, profile, other_world, mixed=mixed)
    sheet = compare(a, b, metric)
    print(FORMATS["md"](sheet))


def compare(a: Selection, b: Selection, metric: str = PRIMARY_OUTCOME) -> Sheet:
    """Return one row per shared arm: the measure in both grids, and second minus first.

    The difference is paired over the seeds of the arm that both grids have in the same world, if there are two or more; otherwise
    its interval is Welch's. Raises InputError if the grids share no arm with that measure.
    """
    rows: list[dict[Column, Value]] = []
    outcome = find(metric)
    for arm in (arm for arm in a.arms if arm in b.arms):
        x, y = (
            {(r.world_hash, r.seed): v for r in grid.of(arm) if math.isfinite(v := outcome.read(r))} for grid in (a, b)
        )
        if not x or not y:
            continue
        common = sorted(x.keys() & y.keys())
        paired = len(common) > 1 or x.keys() == y.keys()
        change = t_interval([y[key] - x[key] for key in common]) if paired else welch([*x.values()], [*y.values()])
        rows.append(
            {
                ARM: arm,
                Column("first", a.grid, outcome.unit): over_seeds(outcome, a.of(arm)),
                Column("second", b.grid + " (second)" * (a.grid == b.grid), outcome.unit): over_seeds(
                    outcome, b.of(arm)
                ),
                Column("difference", "second - first", outcome.difference_unit): change,
                Column("interval", "interval"): f"paired, n = {change.n}" if paired else "Welch",
            }
        )
    notes = (
        *(f"{s.grid}: {note}" for s in (a, b) for note in (*s.notes, s.counted)),
        *dict.fromkeys((redraws(a.records), redraws(b.records))),
        *(["Diverged cells are left out."] if a.diverged or b.diverged else []),
        "Mean over seeds ± half the 95 % t-interval. Differences are paired over the seeds that both grids have in "
        "the same world, if there are two or more; otherwise the interval is Welch's. Descriptive, not tested.",
    )
    sheet = Sheet.of("compare", f"{outcome.heading}: {a.grid} and {b.grid}", rows, *notes)
    if sheet is None:
        got = f"{metric}; {a.grid}: {', '.join(a.arms)}; {b.grid}: {', '.join(b.arms)}"
        fix = "choose other grids or another --metric"
        raise InputError("the grids share no arm with this measure", got=got, fix=fix)
    return sheet


def welch(x: list[float], y: list[float]) -> Interval:
    """Return Welch's 95 % interval of mean(y) - mean(x); its bounds are NaN if ``x`` or ``y`` has fewer than two values."""
    from scipy.stats import ttest_ind

    n = min(len(x), len(y))
    difference = sum(y) / len(y) - sum(x) / len(x)
    if n < 2:
        return Interval(difference, math.nan, math.nan, n)
    interval = ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
    return Interval(difference, float(interval.low), float(interval.high), n)


if __name__ == "__main__":
    main()

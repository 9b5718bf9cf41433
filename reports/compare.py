"""``python -m reports.compare A B``: compare the same arms in two grids. Descriptive: nothing is tested.

Exit status: 0, or 2 for bad input.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import Plugin, exit_on_input_error, program
from ablations.errors import InputError
from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import over_seeds
from ablations.stats.family import PRIMARY_OUTCOME
from ablations.stats.statistics import Interval, t_interval
from reports.loading import REDRAWS, Selection, select
from reports.writers import FORMATS

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
    mixed: Annotated[bool, typer.Option("--mixed", help="Accept cells from different versions of the code.")] = False,
) -> None:
    """Print a measure of the arms that two grids share, and its difference."""
    with exit_on_input_error():
        a = select(runs_dir, first, profile, world, mixed=mixed)
        b = select(other_runs_dir or runs_dir, second, profile, other_world, mixed=mixed)
        sheet = compare(a, b, metric)
    print(FORMATS["md"](sheet))


def compare(a: Selection, b: Selection, metric: str = PRIMARY_OUTCOME) -> Sheet:
    """Return one row per shared arm: the measure in both grids, and second minus first.

    The difference is paired by seed if both grids use the same world and the same seeds of the arm; otherwise its interval is
    Welch's. Raises InputError if the grids share no arm with that measure.
    """
    rows: list[tuple[Value, ...]] = []
    outcome = find(metric)
    outcomes = [outcome.values(selection.records) for selection in (a, b)]
    for arm in (arm for arm in a.arms if arm in b.arms):
        values = [
            {seed: value for (label, seed), value in grid.items() if label == arm and math.isfinite(value)}
            for grid in outcomes
        ]
        if not all(values):
            continue
        paired = a.records[0].world_hash == b.records[0].world_hash and values[0].keys() == values[1].keys()
        if paired:
            change = t_interval([values[1][seed] - values[0][seed] for seed in values[0]])
        else:
            change = welch(list(values[0].values()), list(values[1].values()))
        means = [over_seeds(arm, [*seeds], grid) for seeds, grid in zip(values, outcomes, strict=True)]
        rows.append((arm, *means, change, "paired" if paired else "Welch"))
    if not rows:
        raise InputError(
            "the grids share no arm with this measure",
            got=f"{metric}; {a.grid}: {', '.join(a.arms)}; {b.grid}: {', '.join(b.arms)}",
            fix="choose other grids or another --metric",
        )
    unit = outcome.unit
    columns = (
        Column("arm", "arm"),
        Column("first", a.grid, unit),
        Column("second", b.grid if b.grid != a.grid else f"{b.grid} (second)", unit),
        Column("difference", "second - first", outcome.difference_unit),
        Column("interval", "interval"),
    )
    notes = (
        *(f"{s.grid}: {note}" for s in (a, b) for note in (*s.notes, s.counted)),
        REDRAWS,
        "Mean over seeds ± half the 95 % t-interval. Differences are paired by seed if both grids use the same world "
        "and seeds; otherwise the interval is Welch's. Descriptive, not tested.",
    )
    return Sheet("compare", f"{outcome.heading}: {a.grid} and {b.grid}", columns, tuple(rows), notes)


def welch(x: list[float], y: list[float], level: float = 0.95) -> Interval:
    """Return Welch's interval of mean(y) - mean(x); its bounds are NaN if ``x`` or ``y`` has fewer than two values."""
    import numpy as np

    difference = float(np.mean(y) - np.mean(x))
    n = min(len(x), len(y))
    if n < 2:
        return Interval(difference, math.nan, math.nan, n)
    from scipy.stats import ttest_ind

    interval = ttest_ind(y, x, equal_var=False).confidence_interval(level)
    return Interval(difference, float(interval.low), float(interval.high), n)


if __name__ == "__main__":
    main()

"""``python -m ablations.pilot --runs-dir runs``: measure the spread of RRPO - DiffRO over development seeds, never its mean.

The command runs DiffRO and RRPO on eight development seeds. It prints the standard deviation of their difference in the primary
outcome and the number of seeds that it requires. The difference itself is neither printed nor recorded, so that nobody sees it
before the reported seeds are run. The printed pilot is committed by hand, as `ablations.stats.family.PILOT`.

``--replicated`` also estimates variance components. A seed redraws three things at once: the data (annotated utterances and
raters, SFT utterances and SFT), the reward model (initialization, order and noise of pre-training and fine-tuning) and the
optimization (RL prompts, roll-outs, evaluation noise). The replicated pilot has four draws of the data, two reward models for
each, and two optimizations for each of these, the same for both arms. A nested analysis of variance of the difference then shows
which of the three a larger experiment would have to redraw. It analyzes the difference rather than one arm, because pairing
cancels what both arms share. The component of the optimization includes the sampling noise of 1,200 samples per arm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from ablations.commands import Device, RunsDir, Workers, print_line, terminal
from ablations.execution.building import Builder
from ablations.execution.jobs import unrecorded
from ablations.grids import GRIDS, arms
from ablations.stats.contrasts import overall
from ablations.stats.family import ALPHA, COMPONENTS, MARGIN, POWER, Pilot, family, margin_text, primary
from ablations.stats.inference import nested_components
from ablations.stats.power import seeds_needed, spread_bound
from ablations.stats.power_analysis import analyze_power
from rrpo.commands import program
from rrpo.experiment.cell import Cell
from rrpo.profiles import EMBEDDED

SEEDS = range(1000, 1008)
"""Development seeds of the pilot."""
REPLICATES = (4, 2, 2)
"""(draws of the data, reward models per draw, optimizations per reward model)."""
MOST = 16
"""Maximum number of seeds of the reported grid."""
app, main = program("ablations.pilot")
Draw = dict[str, Cell]
"""Arm -> cell, for the two arms with the same data, reward-model and optimization seeds."""


def draw(seed: int, rm_seed: int | None = None, policy_seed: int | None = None) -> Draw:
    """Return the cells of both arms on one seed, optionally with other seeds for the reward model or the optimization."""
    (contrast,) = overall().values()
    known = arms()
    chosen = {name: replace(known[name], rm_seed=rm_seed, policy_seed=policy_seed) for name in contrast}
    return {name: Cell(label=name, arm=arm, seed=seed, profile=EMBEDDED) for name, arm in chosen.items()}


def replicates() -> list[Draw]:
    """Return the cells of the replicated pilot in nested order (`REPLICATES`); the first of each data draw is the pilot's own."""
    data, models, optimizations = REPLICATES
    return [
        draw(
            SEEDS[d],
            rm_seed=SEEDS[d] + 100 * r if r else None,
            policy_seed=SEEDS[d] + 1000 * (r * optimizations + o) if r or o else None,
        )
        for d, r, o in product(range(data), range(models), range(optimizations))
    ]


def differences(draws: Sequence[Draw], store: Path) -> NDArray[np.float64]:
    """Return RRPO - DiffRO in the primary outcome ``[len(draws)]``, read from finished stages."""
    (contrast,) = overall().values()

    def read(cell: Cell) -> float:
        return primary().read(unrecorded(cell, cell.stages["scored"].path(store)))

    return np.array([sum(weight * read(cells[arm]) for arm, weight in contrast.items()) for cells in draws])


def measured(spread: NDArray[np.float64], replicated: NDArray[np.float64] | None, world: str) -> Pilot:
    """Compute the pilot.

    Args:
        spread: Difference on each seed ``[seeds]``.
        replicated: Difference for each replicate ``[data, reward models, optimizations]``; None: no variance components.
        world: Hash of the world.
    """
    parts = [] if replicated is None else [math.sqrt(variance) for variance in nested_components(replicated)]
    components = dict(zip(COMPONENTS, parts, strict=False))
    return Pilot(spread=float(spread.std(ddof=1)), seeds=len(spread), world=world, components=components)


def lines(pilot: Pilot) -> list[str]:
    """Return the output: the spread and its components, the number of seeds it requires, and the line to commit."""
    labels = list(dict.fromkeys(cell.label for cell in GRIDS["full"].cells(EMBEDDED, [0])))
    alpha = ALPHA / len(family())
    bounds = {"point estimate": pilot.spread, "80 % upper bound": spread_bound(pilot.spread, pilot.seeds)}
    needed = {name: seeds_needed(MARGIN, sd, alpha, POWER) for name, sd in bounds.items()}
    rounded = {name: round(sd, 4) for name, sd in pilot.components.items()}
    components = f", components={rounded}" if rounded else ""
    return [
        f"spread of {next(iter(overall()))} in {primary().label} over {pilot.seeds} development seeds: "
        f"{100 * pilot.spread:.1f} points (80 % upper bound {100 * bounds['80 % upper bound']:.1f})",
        f"seeds needed to detect {margin_text()}: "
        + ", ".join(f"{count or 'too many'} by the {name}" for name, count in needed.items())
        + f"; at most {MOST} are run",
        *analyze_power(labels, MOST, pilot)[1:],
        f'PILOT: Pilot | None = Pilot(spread={pilot.spread:.4f}, seeds={pilot.seeds}, world="{pilot.world}"{components})',
    ]


@app.command()
def command(
    replicated: Annotated[
        bool,
        typer.Option(
            "--replicated", help="Also estimate the variance due to data, reward model and optimization: 12 more draws."
        ),
    ] = False,
    device: Device = "auto",
    workers: Workers = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure the spread of RRPO - DiffRO over development seeds, from which the number of reported seeds is chosen.

    The difference itself is not shown.
    """
    console = terminal()
    builder = Builder.of(device, workers, runs_dir, console)
    builder.folder.make()
    store = builder.folder.root
    draws = [draw(seed) for seed in SEEDS]
    extra = replicates() if replicated else []
    stages = [cell.stages["scored"] for cells in (*draws, *extra) for cell in cells.values()]
    builder.require(stages)
    nested = differences(extra, store).reshape(REPLICATES) if extra else None
    world = next(iter(draws[0].values())).world_hash
    for line in lines(measured(differences(draws, store), nested, world)):
        print_line(console, line)


if __name__ == "__main__":
    main()

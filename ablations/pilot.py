"""``python -m ablations.pilot --runs-dir runs``: measure the spread of RRPO - DiffRO over development seeds, never its mean.

The command runs DiffRO and RRPO on eight development seeds. It prints the standard deviation of their difference in the primary
outcome and the number of seeds that it requires. The difference itself is neither printed nor recorded, so that nobody sees it
before the reported seeds are run. The printed pilot is committed by hand, as `ablations.stats.family.PILOT`.

``--replicated`` estimates variance components instead. A seed redraws three things at once: the data (annotated utterances and
raters, SFT utterances and SFT), the reward model (initialization, order and noise of pre-training and fine-tuning) and the
optimization (RL prompts, roll-outs, evaluation noise). The replicated pilot has four draws of the data, two reward models for
each, and two optimizations for each of these, the same for both arms. A nested analysis of variance of the difference estimates
what each of the three contributes, roughly: it has 3, 4 and 8 degrees of freedom. It analyzes the difference rather than one arm,
because pairing cancels what both arms share. The component of the optimization includes the noise of 1,200 samples per arm.
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
from ablations.grids import DEVELOPMENT, GRIDS, arms
from ablations.stats.contrasts import overall
from ablations.stats.family import COMPONENTS, PILOT, Pilot, primary
from ablations.stats.inference import nested_components
from ablations.stats.power import spread_bound
from ablations.stats.power_analysis import analyze_power
from rrpo.commands import program
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.profiles import EMBEDDED

SEEDS = range(DEVELOPMENT, DEVELOPMENT + 8)
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


def measured(spread: NDArray[np.float64], world: str) -> Pilot:
    """Return the pilot from the difference on each seed ``[seeds]`` and the hash of the world."""
    return Pilot(spread=float(spread.std(ddof=1)), seeds=len(spread), world=world)


def decomposed(pilot: Pilot, nested: NDArray[np.float64]) -> Pilot:
    """Return the pilot with the components of the difference for each replicate ``[data, reward models, optimizations]``."""
    parts = nested_components(nested)
    components = {name: (math.sqrt(part.variance), part.sd_bound) for name, part in zip(COMPONENTS, parts, strict=True)}
    return replace(pilot, components=components)


def lines(pilot: Pilot) -> list[str]:
    """Return the output of a pilot: the spread, the number of seeds it requires, and the line to commit."""
    labels = list(dict.fromkeys(cell.label for cell in GRIDS["full"].cells(EMBEDDED, [0])))
    return [
        f"spread of {next(iter(overall()))} in {primary().label} over {pilot.seeds} development seeds: "
        f"{100 * pilot.spread:.1f} points (80 % upper bound {100 * spread_bound(pilot.spread, pilot.seeds):.1f}); "
        f"at most {MOST} seeds are run",
        *analyze_power(labels, MOST, pilot)[1:],
        committed(pilot),
    ]


def committed(pilot: Pilot) -> str:
    """Return the line that is committed in `ablations.stats.family`."""
    rounded = {name: (round(sd, 4), round(bound, 4)) for name, (sd, bound) in pilot.components.items()}
    components = f", components={rounded}" if rounded else ""
    return f'PILOT: Pilot | None = Pilot(spread={pilot.spread:.4f}, seeds={pilot.seeds}, world="{pilot.world}"{components})'


@app.command()
def command(
    replicated: Annotated[
        bool,
        typer.Option(
            "--replicated", help="Estimate the variance due to data, reward model and optimization instead: 16 draws."
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
    draws = replicates() if replicated else [draw(seed) for seed in SEEDS]
    world = next(iter(draws[0].values())).world_hash
    pilot = PILOT if replicated and PILOT and PILOT.world == world else None
    if replicated and not pilot:
        fix = "run python -m ablations.pilot without --replicated first, and commit the line that it prints"
        raise InputError("there is no committed pilot of this world", got=PILOT and PILOT.world, fix=fix)
    builder.require([cell.stages["scored"] for cells in draws for cell in cells.values()])
    x = differences(draws, store)
    if pilot:
        pilot = decomposed(pilot, x.reshape(REPLICATES))
        output = [pilot.parts, committed(pilot)]
    else:
        output = lines(measured(x, world))
    for line in output:
        print_line(console, line)


if __name__ == "__main__":
    main()

"""``python -m ablations.gradients --runs-dir runs``: compare DiffRO's gradient with the policy gradient.

Builds the stage ``gradients`` (see `rrpo.diagnostics.gradients` for what is measured) on development seeds, with the reward model
of vanilla DiffRO or of another arm. Prints, and writes to ``runs/gradients``, the mean of every measure over seeds and its ratio
to REINFORCE's, with 95 % intervals. The gradients are measured at three policies: SFT, the checkpoint with the highest accuracy
by the tuning judge (the peak), and the last checkpoint; or, with ``--updates``, after the given numbers of updates of the arm's
optimization. The optimization is rerun up to there, because policies are not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from ablations.commands import Device, RunsDir, Workers, terminal
from ablations.execution.building import Builder
from ablations.execution.request import simulated
from ablations.grids import DEVELOPMENT, arms
from ablations.judges import tuning
from ablations.rendering.gradients import CSV, page
from ablations.tracking.records import POINTS_FILE
from rrpo.arms import BASE
from rrpo.commands import Plugin, program
from rrpo.config import GradientsConfig
from rrpo.errors import InputError, choose, positive
from rrpo.experiment import dataflow, measurements
from rrpo.settings import assignments

TABLE = "gradients.parquet"
FOLDER, PAGE = "gradients", "gradients.md"
"""Folder in the runs folder, and the page in it."""
app, main = program("ablations.gradients")


def _sizes(changes: Sequence[str]) -> GradientsConfig:
    known = {field.name: field.type for field in fields(GradientsConfig) if field.name not in ("updates", "optimize")}
    values: dict[str, float] = {}
    for name, value in assignments(changes, "--set", "NAME=VALUE", "batches=8").items():
        kind = float if known[choose("size for --set NAME=VALUE", name, list(known))] == "float" else int
        try:
            values[name] = kind(value)
        except ValueError:
            raise InputError(f"{name} must be a number", got=value, fix=f"for example --set {name}=8") from None
    try:
        return GradientsConfig(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(
            f"a size is out of its range: {error}", got=", ".join(changes), fix="give a value in it"
        ) from None


@app.command()
def command(
    seeds: Annotated[int, typer.Option(help="Number of development seeds, from 1000 on.")] = 5,
    updates: Annotated[
        str,
        typer.Option(
            help="Numbers of updates at which to measure, separated by commas; 0 is SFT. Default: SFT, the checkpoint with the "
            "highest accuracy by the tuning judge, and the last checkpoint.",
            show_default=False,
        ),
    ] = "",
    arm: Annotated[str, typer.Option(help="Arm whose reward model and optimization are used.")] = BASE,
    profile: Annotated[str, typer.Option(help="Name of the profile.")] = "embedded",
    plugin: Plugin = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Change a size of the comparison, as in batches=48; repeatable."
        ),
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare the gradients of DiffRO, REINFORCE and GRPO."""
    console = terminal()
    builder = Builder.of(device, workers, runs_dir, console)
    size, chosen = simulated(profile, 0), arms()[choose("arm", arm, arms())]
    if chosen.best_of is not None or chosen.guidance is not None:
        fix = "choose an arm with an optimized policy"
        raise InputError("best-of-n and guided decoding have no gradient", got=arm, fix=fix)
    if chosen.match_gradient:
        raise InputError(
            "this arm's gradient is scaled to RRPO's, which is not known here", got=arm, fix=f"use --arm {BASE}"
        )
    steps = size.optimize.steps if chosen.steps is None else chosen.steps
    requested = {f"point {n}": n for n in _places(updates, steps)} if updates else {}
    dev_seeds, sizes = range(DEVELOPMENT, DEVELOPMENT + positive("--seeds", seeds)), _sizes(set_ or [])
    builder.folder.make()
    places = [requested] * len(dev_seeds)
    if not requested:
        runs = [dataflow.optimized(size, chosen, seed) for seed in dev_seeds]
        places = [peaks(path) for path in builder.require(runs)]
    points = [(place, at[place], seed) for place in places[0] for seed, at in zip(dev_seeds, places, strict=True)]
    paths = builder.require([measurements.gradients(size, chosen, seed, n, sizes) for _, n, seed in points])
    tables = [
        pd.read_parquet(path / TABLE).assign(arm=arm, profile=profile, seed=seed, updates=n, place=place)
        for path, (place, n, seed) in zip(paths, points, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    text = page(table)
    folder = builder.folder.root / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / PAGE).write_text(text, encoding="utf-8")
    table.to_csv(folder / CSV, index=False)
    print(f"{text}\nWritten to {folder}: {PAGE}, and the values by seed, {CSV}")


def peaks(folder: Path) -> dict[str, int]:
    """Return the updates of SFT, of the checkpoint with the highest accuracy by the tuning judge (the earliest of equals), and of
    the last checkpoint, from the folder of an optimization."""
    points = pd.read_parquet(folder / POINTS_FILE)
    best = int(points["step"].iloc[int(points[tuning().accuracy].to_numpy().argmax())])
    return {"SFT": 0, "peak": best, "end": int(points["step"].iloc[-1])}


def _places(text: str, limit: int) -> list[int]:
    try:
        places = [int(part) for part in text.split(",")]
    except ValueError:
        places = [-1]
    if min(places) < 0 or max(places) > limit:
        raise InputError(
            f"--updates takes numbers from 0 to {limit}, separated by commas",
            got=text,
            fix="for example --updates 0,60,240",
        )
    return places


if __name__ == "__main__":
    main()

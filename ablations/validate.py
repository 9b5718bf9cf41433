"""``python -m ablations.validate --runs-dir runs``: validate a world and print the validation report (the world card).

The command builds missing stages in the same store as `ablations.run`, measures every section, writes ``world-card/`` in the runs
folder, and records a run in MLflow's experiment ``world``.

Exit status: 0 if every line passes, 1 if one fails or a section could not be measured, 2 for invalid input, 130 after Ctrl-C.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ablations import regime, regime_section
from ablations.commands import Device, RunsDir, Workers, WorldSeed, end_if_failed, print_line, terminal
from ablations.execution import environment
from ablations.execution.building import Builder
from ablations.execution.request import simulated
from ablations.grids import DEVELOPMENT
from ablations.rendering import card
from ablations.tracking import recorder, records
from ablations.tracking.run_files import files_in
from ablations.tracking.runs_folder import RunsFolder
from ablations.tracking.source_version import git_state
from rrpo.commands import program
from rrpo.errors import InputError, choose
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import Stage
from rrpo.profiles import Profile, title
from rrpo.validation.lines import LINES, Line, load
from rrpo.validation.sections import VANILLA, sections

REGIME = "regime"
"""Name of the section that is measured on complete policy optimizations, over several seeds."""
FOLDER = "world-card"
"""Folder of the last card, inside the runs folder."""
app, main = program("ablations.validate")


@app.command()
def command(
    profile: Annotated[str, typer.Option(help="Size of world and models: smoke or embedded.")] = "embedded",
    world: WorldSeed = 0,
    seed: Annotated[
        int,
        typer.Option(
            help="Development seed of RM and policy, 1000 or above. The section `regime` uses the next two as well."
        ),
    ] = DEVELOPMENT,
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Skip a section; repeatable. The section `regime` needs six policy optimizations."),
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Validate the world: whether speech is valid, judges are trustworthy and hacking is visible."""
    console = terminal()
    profile_config = simulated(profile, world)
    if seed < DEVELOPMENT:
        what = (
            "worlds are validated on development seeds only: reported seeds must not be used before the world is frozen"
        )
        raise InputError(what, got=f"--seed {seed}", fix=f"give --seed {DEVELOPMENT} or above")
    builder = Builder.of(device, workers, runs_dir, console)
    folder = builder.folder
    stages = sections(profile_config, seed)
    skipped = [choose("section", name, [*stages, REGIME]) for name in skip or ()]
    recorder.create(folder, records.EXPERIMENT_WORLD)
    stages = {name: stage for name, stage in stages.items() if name not in skipped}
    seeds = range(seed, seed + regime_section.SEEDS)
    runs = [] if REGIME in skipped else regime_section.stages(profile_config, seeds)
    failures = builder.build([*stages.values(), *runs])
    lines = collect(stages, folder.root)
    heading = f"World card: profile {title(profile, world)}, seed {seed}"
    heading += f", without {', '.join(skipped)}" if skipped else ""
    if failures:
        console.print(card.terminal(lines, heading))
        print_line(console, f"{card.conclusion(lines)}; {len(failures)} stages not built, so nothing was written")
        end_if_failed(failures, console)
    out = folder.root / FOLDER
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    tables = [path for stage in stages.values() for path in stage.path(folder.root).glob("*.csv")]
    for table in tables:
        shutil.copy(table, out)
    if runs:
        measured = regime.measured(regime_section.candidates(), regime.measuring(profile_config), folder.root, seeds)
        measured.to_csv(out / f"{REGIME}.csv", index=False)
        regime.draw(measured, out, REGIME)
        lines += regime_section.lines(measured)
    card.write(lines, heading, out)
    if (out / card.PHONETICS).is_file():
        card.plot(out / card.PHONETICS, out)
    waiting = _log(lines, profile_config, seed, folder, builder.device, out)
    console.print(card.terminal(lines, heading))
    for text in (f"Written to {out}", waiting, f"Open MLflow: {folder.ui_command()}", card.conclusion(lines)):
        if text:
            print_line(console, text)
    raise typer.Exit(0 if card.passes(lines) else 1)


def collect(stages: dict[str, Stage], store: Path) -> list[Line]:
    """Return the lines of all built sections, in the report's order."""
    return [line for stage in stages.values() if stage.done(store) for line in load(stage.path(store) / LINES)]


def _log(lines: Sequence[Line], profile: Profile, seed: int, folder: RunsFolder, device: str, out: Path) -> str:
    """Record the card in MLflow's experiment ``world``; return a sentence on what still waits for the store, empty if nothing."""
    cell = Cell(label="world", arm=VANILLA, seed=seed, profile=profile)
    tracker = recorder.Tracker(folder, records.EXPERIMENT_WORLD, git_state(), environment.describe(device))
    tags = {records.TAG_PROFILE: profile.name, records.TAG_WORLD_HASH: cell.world_hash, records.TAG_SEED: str(seed)}
    files = files_in(out)
    tracker.record("card", f"card {cell.world_hash}", tags, cell.params(), card.metrics(lines), files)
    return tracker.waiting()


if __name__ == "__main__":
    main()

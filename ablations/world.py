"""``python -m ablations.world --runs-dir runs``: update the frozen world, which is installed with the package.

The command builds missing stages in the same store as `ablations.run`, copies them into the package and removes stale ones;
current stages are not touched. ``--check`` only reports which stages are stale, missing or superfluous.

Exit status: 0 on success, 1 if a stage cannot be built or ``--check`` finds that the frozen world is not current, 2 for invalid
input, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import RunsDir, Workers, program, refusing, say, terminal
from ablations.execution import environment
from ablations.execution.building import build
from ablations.execution.estimate import Estimator
from ablations.execution.request import worker_count
from ablations.execution.runs_folder import check
from ablations.tracking import recorder, records
from rrpo.pipeline import frozen, stages
from rrpo.pipeline.frozen import Review
from rrpo.pipeline.stages import Stage

app, main = program("ablations.world")


@app.command()
def command(
    check_only: Annotated[bool, typer.Option("--check", help="Only report whether it is current.")] = False,
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda. A world's numbers depend on it.")] = "cpu",
    workers: Workers = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Update the world that is installed with the package, or check whether it is current."""
    console = terminal()
    wanted = frozen.frozen()
    if check_only:
        found = frozen.review(wanted)
        for line in [*([] if found.empty else lines(found)), conclusion(found, wanted)]:
            say(console, line)
        raise typer.Exit(0 if found.current or found.empty else 1)
    with refusing():
        folder = check(runs_dir)
        machine = environment.resolve_device(device)
        count = worker_count(workers, machine)
        recorder.create(folder, records.EXPERIMENT_WORLD)
    if failures := build(wanted, folder, Estimator(folder.root, machine), count, console):
        say(console, "The frozen world was not changed, because some stages could not be built:")
        for name, reason in failures.items():
            say(console, f"  {name}: {reason}")
        raise typer.Exit(1)
    before = frozen.freeze(wanted, folder.root)
    for stage in before.missing:
        say(console, f"added: {stage.folder} ({stage}), {_mib(stage)}")
    for name in (*before.stale, *before.superfluous):
        say(console, f"removed: {name}")
    say(console, conclusion(frozen.review(wanted), wanted))


def lines(found: Review) -> list[str]:
    """Return one line for each missing, stale or superfluous stage."""
    return [
        *(f"missing: {stage.folder} ({stage})" for stage in found.missing),
        *(f"stale: {folder}: {why}" for folder, why in found.stale.items()),
        *(f"superfluous: {folder}" for folder in found.superfluous),
    ]


def conclusion(found: Review, wanted: Sequence[Stage]) -> str:
    """Return the last line of the output: whether the frozen world is current."""
    if found.empty:
        return f"The world is not frozen yet: {stages.LAYER} contains no stages, so every stage is built when it is needed."
    if found.current:
        return f"The frozen world is current: {len(wanted)} stages, {_mib(*wanted)}."
    parts = {"missing": found.missing, "stale": found.stale, "superfluous": found.superfluous}
    counts = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    return f"The frozen world is not current: {counts}. `make world` brings it up to date."


def _mib(*held: Stage) -> str:
    return f"{sum(frozen.size(stage.folder) for stage in held) / 2**20:.2f} MiB"


if __name__ == "__main__":
    main()

"""``python -m ablations.world --runs-dir runs``: update the frozen world, which is installed with the package.

The command builds missing stages in the same store as `ablations.run`, copies them into the package and removes outdated ones;
current stages are not touched. ``--check`` only reports which stages are missing or outdated.

Exit status: 0 on success, 1 if a stage cannot be built or ``--check`` finds that the frozen world is not current, 2 for invalid
input, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import RunsDir, Workers, end_if_failed, print_line, terminal
from ablations.execution.building import Builder
from ablations.tracking import recorder, records
from rrpo.commands import program
from rrpo.experiment import frozen
from rrpo.experiment.frozen import Review
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
    stages = frozen.frozen()
    if check_only:
        review = frozen.review(stages)
        for line in [*lines(review), conclusion(review, stages)]:
            print_line(console, line)
        raise typer.Exit(0 if review.current else 1)
    builder = Builder.of(device, workers, runs_dir, console)
    folder = builder.folder
    recorder.create(folder, records.EXPERIMENT_WORLD)
    if failures := builder.build(stages):
        print_line(console, "The frozen world was not changed, because some stages could not be built:")
        end_if_failed(failures, console)
    changes = frozen.freeze(stages, folder.root)
    for stage in changes.missing:
        print_line(console, f"added: {stage.folder} ({stage}), {_mib(stage)}")
    for name in changes.outdated:
        print_line(console, f"removed: {name}")
    print_line(console, conclusion(frozen.review(stages), stages))


def lines(review: Review) -> list[str]:
    """Return one line for each missing or outdated stage."""
    missing = [f"missing: {stage.folder} ({stage})" for stage in review.missing]
    return missing + [f"outdated: {folder}: {reason}" for folder, reason in review.outdated.items()]


def conclusion(review: Review, stages: Sequence[Stage]) -> str:
    """Return the last line of the output: whether the frozen world is current."""
    if review.current:
        return f"The frozen world is current: {len(stages)} stages, {_mib(*stages)}."
    counts = f"{len(review.missing)} missing, {len(review.outdated)} outdated"
    return f"The frozen world is not current: {counts}. `make world` brings it up to date."


def _mib(*stages: Stage) -> str:
    return f"{sum(frozen.size(stage.folder) for stage in stages) / 2**20:.2f} MiB"


if __name__ == "__main__":
    main()

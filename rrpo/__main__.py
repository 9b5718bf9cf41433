"""``python -m rrpo --arm rrpo --seed 1``: train one arm with one seed in this process and print its numbers.

It writes no tracking store. Results are stored in ``--out`` by content hash, where `ablations.run` finds them.

Exit status: 0 on success, 1 if training failed, 2 for bad input, 130 after Ctrl-C. Run the same command again to resume.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rrpo.api import DEVICES, Report, Result, build, make_cell, result
from rrpo.arms import ARMS
from rrpo.commands import Plugin, Set, program, training
from rrpo.errors import writable
from rrpo.pipeline.stages import Stage
from rrpo.profiles import PROFILES
from rrpo.regularizers import REGULARIZERS
from rrpo.settings import assignments, differences

NUMBERS: Mapping[str, str] = {
    "end_test_accuracy": "accuracy of the held-out test judge (gold)",
    "end_val_accuracy": "accuracy of the validation judge",
    "end_proxy_accuracy": "accuracy of the arm's own reward model (proxy)",
    "end_phone_error_rate": "phone errors per phone of the text",
    "end_hack_rate": "hacked samples: the proxy is right, and gold is wrong or there is an artefact",
    "end_uptake": "shortcut uptake",
    "end_kl_token": "KL to SFT, nats per token",
    "rm_accuracy_valid": "reward model alone: accuracy",
    "rm_ece": "reward model alone: calibration error",
}
"""Printed numbers of the last checkpoint, with their descriptions; ``--json`` prints all numbers."""
app, main = program("rrpo")


@app.command()
def command(
    arm: Annotated[
        str,
        typer.Option(
            help=f"Arm: one of {', '.join(ARMS)}, or regularizers from {', '.join(REGULARIZERS)} joined by _."
        ),
    ] = "rrpo",
    seed: Annotated[int, typer.Option(help="Seed; 1000 and above are for development.")] = 1,
    profile: Annotated[
        str, typer.Option(help=f"Size of world and models, one of: {', '.join(PROFILES)}.")
    ] = "embedded",
    settings: Set = None,
    plugin: Plugin = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; may be an existing runs folder.")] = Path("runs"),
    device: Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers, parameters and paths as JSON.")] = False,
) -> None:
    """Train one arm with one seed and print its numbers. Results that already exist are reused."""
    console = Console(stderr=True)
    with training("Stopped. Finished work is kept; run the same command again to resume."):
        values = assignments(settings or ())
        cell = make_cell(arm, seed=seed, profile=profile, settings=values)
        writable(out, what="the results cannot be written there")
        for path, (before, after) in differences(PROFILES[profile], cell.profile).items():
            console.print(f"set {path} = {after} ({profile} has {before})", highlight=False)
        with _show_progress(console) as report:
            build(cell, out, device, report)
    trained = result(cell, out)
    print(as_text(trained)) if as_json else Console().print(table(trained))
    if not as_json:
        print("\n".join(f"{name}: {path}" for name, path in trained.tables.items()))


def as_text(trained: Result) -> str:
    """Return the whole result as JSON text."""
    cell = trained.cell
    return json.dumps(
        {
            "arm": cell.label,
            "seed": cell.seed,
            "profile": cell.profile.name,
            "cell_hash": cell.hash,
            "numbers": dict(trained.numbers),
            "parameters": trained.parameters,
            "files": {name: str(path) for name, path in trained.files.items()},
        },
        indent=1,
    )


def table(trained: Result) -> Table:
    """Return a table of the numbers in `NUMBERS`."""
    cell = trained.cell
    rows = Table("number", "value", "what it is", title=f"{cell.name} on {cell.profile.name}", title_justify="left")
    for name, description in NUMBERS.items():
        if name in trained.numbers:
            rows.add_row(name, f"{trained.numbers[name]:.3f}", description)
    return rows


@contextmanager
def _show_progress(console: Console) -> Iterator[Report]:
    """Show progress: one bar per stage on a terminal, one line per stage elsewhere."""
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bars: dict[str, int] = {}

        def report(stage: Stage, done: int, total: int) -> None:
            if stage.key not in bars:
                bars[stage.key] = progress.add_task(str(stage), total=total)
                if not console.is_terminal:
                    console.print(f"building {stage}", highlight=False)
            progress.update(bars[stage.key], completed=done, total=total)  # type: ignore[arg-type]

        yield report


if __name__ == "__main__":
    main()

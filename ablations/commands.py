"""What the commands share beside `rrpo.commands`: options of runs folders and machines, and what is said of failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rrpo.commands import FAILING, HOW, SAID, WHAT, Plugin, Set, refusing, start

__all__ = [
    "FAILING",
    "HOW",
    "SAID",
    "WHAT",
    "Device",
    "Mixed",
    "OfProfile",
    "Plugin",
    "RecordedIn",
    "RunsDir",
    "Set",
    "Workers",
    "World",
    "WorldSeed",
    "end_if_failed",
    "refusing",
    "say",
    "start",
]

RunsDir = Annotated[Path, typer.Option(help="Where stages, logs and the MLflow store lie.", rich_help_panel=SAID)]
RecordedIn = Annotated[Path, typer.Option(help="The runs folder that holds the MLflow store.")]
OfProfile = Annotated[str | None, typer.Option(help="Which profile, where the grid was run on several.")]
World = Annotated[str, typer.Option(help="Which world, by the beginning of its hash, where there are several.")]
WorldSeed = Annotated[
    int,
    typer.Option(
        help="Which world: 0 is installed, others have its sizes but other speakers, texts and judges.",
        rich_help_panel=WHAT,
    ),
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="Pool cells of different worlds or versions of the code, and say so.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=HOW)]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Worker processes. Default: one a CPU, at most 4 on a GPU.", show_default=False, rich_help_panel=HOW
    ),
]


def say(console: Console, text: str) -> None:
    """A line as it is, not wrapped."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def end_if_failed(failures: Mapping[str, str], console: Console) -> None:
    """Say which stages could not be built and why, and end the command with status 1; nothing where all could."""
    for name, reason in failures.items():
        say(console, f"not measured: {name}: {reason}")
    if failures:
        raise typer.Exit(1)

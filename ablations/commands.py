"""Options and messages shared by the commands, in addition to `rrpo.commands`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ablations.rendering.sheet import Sheet
from rrpo.commands import EXECUTION, EXPERIMENT, OUTPUT

WIDTH = 150
"""Default width of the output in columns if it is not a terminal."""
RunsDir = Annotated[Path, typer.Option(help="Folder for stages, logs and the MLflow store.", rich_help_panel=OUTPUT)]
RecordedIn = Annotated[Path, typer.Option(help="Runs folder with the MLflow store.")]
OfProfile = Annotated[str | None, typer.Option(help="Profile to use if the grid was run on several.")]
World = Annotated[
    str, typer.Option(help="World to report: the first characters of its hash. Default: the installed one.")
]
WorldSeed = Annotated[
    int,
    typer.Option(
        "--world",
        help="Seed of the world. 0 is installed with the package; others differ in speakers, texts and judges.",
        rich_help_panel=EXPERIMENT,
    ),
]
Mixed = Annotated[
    bool,
    typer.Option(
        "--mixed", help="Pool cells of different code versions, or of worlds that share no cell; this is reported."
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu or cuda.", rich_help_panel=EXECUTION)]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Number of worker processes. Default: one per CPU, at most 4 per GPU.",
        show_default=False,
        rich_help_panel=EXECUTION,
    ),
]


def terminal(width: int = WIDTH) -> Console:
    """Return the console of the standard output; ``width`` is used if it is not a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=width)


def print_line(console: Console, text: str) -> None:
    """Print a line verbatim, without markup or wrapping."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def rich_table(table: Sheet, **options: Any) -> RichTable:
    """Return a table of results for the terminal, without its notes."""
    head, body = table.texts()
    drawn = RichTable(**options)
    for position, heading in enumerate(head):
        drawn.add_column(Text(heading), justify="left" if position == 0 else "right")
    for row in body:
        drawn.add_row(*map(Text, row))
    return drawn


def show_table(table: Sheet, console: Console, title: str) -> None:
    """Print a table of results with its notes."""
    console.print(rich_table(table, title=title, title_justify="left"))
    for note in table.notes:
        console.print(note, markup=False, highlight=False)


def end_if_failed(failures: Mapping[str, str], console: Console) -> None:
    """If any stages could not be built, print them with the reasons and exit with status 1."""
    for name, reason in failures.items():
        print_line(console, f"not measured: {name}: {reason}")
    if failures:
        raise typer.Exit(1)

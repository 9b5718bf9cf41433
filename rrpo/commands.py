"""Shared parts of all commands: options, handling of bad input, and the entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rrpo import plugins
from rrpo.errors import InputError

WHAT, HOW, FAILING, SAID = "Experiment", "Execution", "Failures", "Output"
"""Headings of the options in ``--help``."""
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change the profile, as in optimize.beta=0.01; repeatable. The changed profile is a separate experiment "
        "with its own name.",
        rich_help_panel=WHAT,
    ),
]


@contextmanager
def refusing() -> Iterator[None]:
    """Print the message of an InputError and exit with status 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _use_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Load the plugins of ``--plugin``, the environment and the installed packages before other options are parsed."""
    with refusing():
        plugins.use(paths or ())
        plugins.load_all()
    return paths


Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        callback=_use_plugins,
        is_eager=True,
        help="Python file that registers your own arms, grids, regularizers, ...; repeatable.",
        rich_help_panel=WHAT,
    ),
]


def start(app: typer.Typer, name: str) -> None:
    """Run a command under its module's name, or the name with which ``rrpo`` started it; exit with status 130 on Ctrl-C."""
    try:
        app(prog_name=sys.argv[0] if sys.argv[0].startswith("rrpo ") else f"python -m {name}")
    except KeyboardInterrupt:
        sys.exit(130)

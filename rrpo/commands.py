"""What the commands of all packages share: options, the end on bad input, the entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rrpo import plugins
from rrpo.errors import InputError

WHAT, HOW, FAILING, SAID = "What is compared", "Where it runs", "When cells fail", "What is written and said"
"""Headings of a long command's options."""
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change the profile, as in optimize.beta=0.01; may be given several times. Another experiment, under a name "
        "of its own.",
        rich_help_panel=WHAT,
    ),
]


@contextmanager
def refusing() -> Iterator[None]:
    """End the command with the one message and status 2 where its input is refused."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _use_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Load what ``--plugin`` and the environment name, and what is installed, before a command looks at its other options."""
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
        help="A Python file that registers arms, grids, regularisers, ... of your own; may be given several times.",
        rich_help_panel=WHAT,
    ),
]


def start(app: typer.Typer, name: str) -> None:
    """Run a command by its module's name, or by the one under which ``rrpo`` started it; Ctrl-C ends it with status 130."""
    try:
        app(prog_name=sys.argv[0] if sys.argv[0].startswith("rrpo ") else f"python -m {name}")
    except KeyboardInterrupt:
        sys.exit(130)

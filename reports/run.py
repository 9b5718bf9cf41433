"""``python -m reports.run --grid full``: regenerate a grid's table and figure from MLflow alone.

Exit status: 0, or 2 for bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ablations.errors import InputError
from reports import effects, figures, tables
from reports.store import select

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def command(
    grid: Annotated[str, typer.Option(help="Which grid.")],
    runs_dir: Annotated[Path, typer.Option(help="The runs folder that holds the MLflow store.")] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Where to write. Default: reports/GRID in the runs folder.", show_default=False)
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Which profile, where the grid was run on several.")] = None,
) -> None:
    """Write table.md, table.csv, effects.csv and goodhart.pdf/.png, the same bytes each time."""
    try:
        selection = select(runs_dir, grid, profile)
        folder = _folder(runs_dir / "reports" / grid if out is None else out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    made = tables.make(selection)
    paths = tables.write(made, grid, folder)
    found, notes = effects.rows(selection.records, selection.looks)
    if found:
        paths.append(folder / "effects.csv")
        paths[-1].write_text(effects.as_csv(found))
        with paths[0].open("a") as file:
            file.write(f"\n## What each component does\n\n{effects.markdown(found, notes)}")
    drawn = figures.goodhart(selection.records, folder)
    if drawn:
        with paths[0].open("a") as file:
            file.write(f"\n![Goodhart curves]({drawn[1].name})\n\n{figures.CAPTION}\n")
    print(paths[0].read_text())
    print("written: " + ", ".join(str(path) for path in paths + drawn))


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "table.md").touch()
    except OSError as error:
        raise InputError(
            "the report cannot be written there", got=f"{path}: {error}", fix="give another --out"
        ) from None
    return path


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="reports.run")


if __name__ == "__main__":
    main()

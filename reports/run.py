"""``python -m reports.run --grid full``: generate a grid's tables, figures and page from MLflow only.

Exit status: 0, or 2 for bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from ablations.commands import Mixed, OfProfile, RecordedIn, World
from ablations.rendering.sheet import markdown
from ablations.stats.family import PRIMARY_OUTCOME
from ablations.tracking.runs_folder import check
from reports import page
from reports.latex import figures_latex
from reports.loading import select
from reports.report import Figure, Report, make
from reports.writers import FORMATS, LISTING, sweep, write
from rrpo.commands import Plugin, program
from rrpo.errors import choose, writable

app, main = program("reports.run")


@app.command()
def command(
    grid: Annotated[list[str], typer.Option(help="Grid. Repeat the option to pool several grids of one world.")],
    plugin: Plugin = None,
    runs_dir: RecordedIn = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder. Default: reports/GRID in the runs folder, in which each report replaces the one before.",
            show_default=False,
        ),
    ] = None,
    profile: OfProfile = None,
    metric: Annotated[
        str, typer.Option(help="Measure in the ablation table and in the figure of seeds.")
    ] = PRIMARY_OUTCOME,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help=f"Formats of the tables: {', '.join(FORMATS)}. Default: all.")
    ] = None,
    world: World = "",
    mixed: Mixed = False,
) -> None:
    """Write tables, figures (PDF, PNG) and report.html, byte for byte the same each time, and store them in MLflow."""
    endings = [choose("format", name, list(FORMATS)) for name in formats or FORMATS]
    selection = select(runs_dir, grid, profile, world, mixed=mixed)
    report = make(selection, metric)
    folder = writable(out or check(runs_dir).root / "reports" / selection.grid)
    paths = write(report.sheets, folder, endings)
    drawn = [(f, f.draw(folder)) for f in track(report.figures, description="figures", transient=True)]
    paths += [path for _, files in drawn for path in files]
    figures = [figure for figure, files in drawn if files]
    if figures and "tex" in endings:
        paths.append(figures_latex([(f.name, f.title, f.caption) for f in figures], folder / "figures.tex"))
    paths.append(page.write(selection, report, figures, folder))
    paths.append(folder / page.ANSWER)
    paths[-1].write_text(answer(report, figures[:1]), encoding="utf-8")
    sweep(folder, paths)
    _show(report, paths)
    page.keep(selection, [*paths, folder / LISTING])


def answer(report: Report, figures: Sequence[Figure]) -> str:
    """Return the first screen as Markdown: the answer, one table, one figure, and provenance."""
    images = [f"![{figure.title}]({figure.name}.png)\n{figure.shows}" for figure in figures]
    return "\n\n".join([*report.answer, markdown(report.sheets[0]).strip(), *images, report.provenance]) + "\n"


def _show(report: Report, paths: Sequence[Path]) -> None:
    print(answer(report, ()))
    print(f"written to {paths[-1].parent}: " + ", ".join(path.name for path in paths))


if __name__ == "__main__":
    main()

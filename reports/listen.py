"""``python -m reports.listen``: export a listening test and import its ratings.

``export`` writes the page on which people rate samples. ``import`` stores the files that the page downloads in MLflow;
`reports.run` then shows the results. Exit status: 0, or 2 for bad input, in which case nothing is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import Mixed, OfProfile, RecordedIn, World
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from reports import listening_test, ratings
from reports.listening_test import PROMPTS, ListeningTest
from reports.loading import select
from rrpo.commands import Plugin, program
from rrpo.errors import InputError, writable

app, main = program("reports.listen")


@app.callback()
def listen() -> None:
    """Export a blind listening test of a grid's samples, and import the listeners' ratings."""


@app.command("export")
def export(
    grid: Annotated[str, typer.Option(help="Grid whose samples are rated.")],
    runs_dir: RecordedIn = Path("runs"),
    arms: Annotated[
        str | None,
        typer.Option(
            help="Arms, separated by commas. Default: those of sft, diffro, rrpo that exist.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas. Default: all.", show_default=False)
    ] = None,
    prompts: Annotated[int, typer.Option(help="Maximum number of prompts per arm that each person hears.")] = PROMPTS,
    profile: OfProfile = None,
    plugin: Plugin = None,
    world: World = "",
    mixed: Mixed = False,
    out: Annotated[
        Path | None, typer.Option(help="Output file. Default: listening/GRID-TEST.html in the runs folder.")
    ] = None,
) -> None:
    """Write a blind listening test of a grid's samples as one HTML file that needs no server."""
    if prompts < 1:
        raise InputError("a listening test needs at least one prompt", got=f"--prompts {prompts}", fix="give 1 or more")
    selection = select(runs_dir, grid, profile, world, mixed=mixed)
    items = listening_test.choose_items(selection, _names(arms), _seeds(seeds), prompts)
    store = selection.store
    folder = writable(out.parent if out else store.folder.root / "listening", out)
    emotions = json.loads(selection.records[0].config["profile.world.emotions"])
    test = listening_test.find_or_make(store, grid, items, emotions)
    path = folder / f"{grid}-{test.id}.html" if out is None else out
    listening_test.write(listening_test.page(test, selection.records), path)
    print("\n".join([_summary(test, path), *selection.notes]))


def _summary(test: ListeningTest, path: Path) -> str:
    items = test.items.values()
    arms, seeds = list(dict.fromkeys(item.arm for item in items)), sorted({item.seed for item in items})
    prompts = {item.prompt: item.emotion for item in items}
    counts = ", ".join(f"{name} {count}" for name, count in sorted(Counter(prompts.values()).items()))
    return (
        f"listening test {test.id} of grid {test.grid}: each person rates {len(arms) * len(prompts)} samples, each of "
        f"{len(prompts)} prompts ({counts}) by each of {len(arms)} arms ({', '.join(arms)}); alternating seeds: "
        f"{', '.join(map(str, seeds))}.\n"
        f"written to {path} ({path.stat().st_size / 1e6:.1f} MB). Give it to the listeners, then run: "
        f"python -m reports.listen import ratings_{test.id}_*.csv"
    )


@app.command("import")
def bring_in(
    files: Annotated[list[Path], typer.Argument(help="CSV files, as downloaded from the page.")],
    runs_dir: Annotated[Path, typer.Option(help="Runs folder from which the test was exported.")] = Path("runs"),
    replace: Annotated[bool, typer.Option("--replace", help="Replace a person's earlier ratings.")] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--as", help="Store one file under this rater name, if two people chose the same name.", show_default=False
        ),
    ] = None,
) -> None:
    """Check rating files and store them in MLflow: all of them, or none if one is bad."""
    folder = check(runs_dir)
    if not folder.exists:
        raise InputError(
            "there is no runs folder", got=runs_dir, fix="set --runs-dir to the folder that exported the page"
        )
    store = Store(folder)
    known = ratings.all_tests(store)
    imported = [ratings.read(path, known) for path in files]
    if name is not None:
        imported = [ratings.renamed(imported, name)]
    new = ratings.check_new(store, imported, replace)
    for file in new:
        ratings.keep(store, file)
    for file in imported:
        rated = len(file.rows)
        total = sum(len(seeds[0]) for seeds in listening_test.blocks(file.test))
        state = "imported" if file in new else "already stored"
        print(f"rater {file.rater}, test {file.test.id}: {rated} of {total} samples rated, {state}")
    grids = sorted({file.test.grid for file in imported})
    print("; ".join(f"python -m reports.run --grid {grid} --runs-dir {runs_dir}" for grid in grids) + " shows them")


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _seeds(text: str | None) -> Sequence[int] | None:
    try:
        return None if text is None else [int(name) for name in text.split(",")]
    except ValueError:
        raise InputError(
            "seeds must be integers separated by commas", got=f"--seeds {text}", fix="--seeds 1,2,3"
        ) from None


if __name__ == "__main__":
    main()

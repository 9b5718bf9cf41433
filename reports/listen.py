"""``python -m reports.listen``: a listening test out, people's ratings in.

``export`` writes the page that people rate on; ``import`` brings the files that it downloads into MLflow, whence `reports.run`
shows them. Exit status: 0, or 2 for bad input, of which nothing is written.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import Mixed, OfProfile, Plugin, RecordedIn, World, refusing, start
from ablations.errors import InputError
from ablations.execution.runs_folder import check
from ablations.tracking.reader import Store
from reports import listening_test, ratings
from reports.listening_test import PROMPTS, ListeningTest
from reports.loading import select

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command("export")
def export(
    grid: Annotated[str, typer.Option(help="Whose samples.")],
    runs_dir: RecordedIn = Path("runs"),
    arms: Annotated[
        str | None,
        typer.Option(help="Which arms, with commas. Default: sft, diffro, rrpo where they are.", show_default=False),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Which seeds, with commas. Default: all.", show_default=False)
    ] = None,
    prompts: Annotated[int, typer.Option(help="Most prompts a person hears by each arm.")] = PROMPTS,
    profile: OfProfile = None,
    plugin: Plugin = None,
    world: World = "",
    mixed: Mixed = False,
    out: Annotated[
        Path | None, typer.Option(help="The file. Default: listening/GRID-TEST.html in the runs folder.")
    ] = None,
) -> None:
    """Write a blind listening test of a grid's samples as one HTML file that needs no server."""
    with refusing():
        if prompts < 1:
            raise InputError("a listening test needs a prompt", got=f"--prompts {prompts}", fix="give 1 or more")
        selection = select(runs_dir, grid, profile, world, mixed=mixed)
        items = listening_test.choose_items(selection, _listed(arms), _numbers(seeds), prompts)
        folder = _writable(runs_dir / "listening" if out is None else out.parent, out)
        emotions = json.loads(selection.records[0].config["profile.world.emotions"])
        test = listening_test.find_or_make(Store(check(runs_dir)), grid, items, emotions)
    path = folder / f"{grid}-{test.id}.html" if out is None else out
    listening_test.write(listening_test.page(test, selection.records), path)
    print("\n".join([_said(test, path), *selection.notes]))


def _said(test: ListeningTest, path: Path) -> str:
    items = test.items.values()
    arms, seeds = list(dict.fromkeys(i.arm for i in items)), sorted({i.seed for i in items})
    asked = {i.prompt: i.emotion for i in items}
    counts = ", ".join(f"{name} {n}" for name, n in sorted(Counter(asked.values()).items()))
    return (
        f"listening test {test.id} of grid {test.grid}: each person hears {len(arms) * len(asked)} samples, every one of "
        f"{len(asked)} prompts ({counts}) by every one of {len(arms)} arms ({', '.join(arms)}); seeds in turn: "
        f"{', '.join(map(str, seeds))}.\n"
        f"written to {path} ({path.stat().st_size / 1e6:.1f} MB). Hand it to people; then: "
        f"python -m reports.listen import ratings_{test.id}_*.csv"
    )


@app.command("import")
def bring_in(
    files: Annotated[list[Path], typer.Argument(help="CSV files as the page downloaded them.")],
    runs_dir: Annotated[Path, typer.Option(help="The runs folder that exported the test.")] = Path("runs"),
    replace: Annotated[
        bool, typer.Option("--replace", help="Let a person's ratings take the place of their earlier ones.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--as", help="Keep one file under this name: two people took the same.", show_default=False),
    ] = None,
) -> None:
    """Check people's ratings and bring them into MLflow; all of the files, or nothing."""
    with refusing():
        folder = check(runs_dir)
        if not folder.exists:
            raise InputError("there is no runs folder", got=runs_dir, fix="give --runs-dir the one that wrote the page")
        store = Store(folder)
        known = ratings.all_tests(store)
        read = [ratings.read(path, known) for path in files]
        if name is not None:
            read = [ratings.renamed(read, name)]
        fresh = ratings.check_new(store, read, replace)
    for file in fresh:
        ratings.keep(store, file)
    for file in read:
        heard = len(file.rows)
        whole = sum(len(seeds[0]) for seeds in listening_test.blocks(file.test))
        state = "imported" if file in fresh else "was there already"
        print(f"rater {file.rater}, test {file.test.id}: {heard} of {whole} samples rated, {state}")
    grids = sorted({file.test.grid for file in read})
    print("; ".join(f"python -m reports.run --grid {grid} --runs-dir {runs_dir}" for grid in grids) + " shows them")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _numbers(text: str | None) -> Sequence[int] | None:
    try:
        return None if text is None else [int(name) for name in text.split(",")]
    except ValueError:
        raise InputError("seeds are whole numbers with commas", got=f"--seeds {text}", fix="--seeds 1,2,3") from None


def _writable(folder: Path, out: Path | None) -> Path:
    """The folder, made and tried, before anything is drawn or stored."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if out is not None and out.is_dir():
            raise IsADirectoryError(f"{out} is a folder")
    except OSError as error:
        raise InputError("the page cannot be written there", got=error, fix="give another --out") from None
    return folder


def main() -> None:
    """Entry point of the console script."""
    start(app, "reports.listen")


if __name__ == "__main__":
    main()

"""Benchmark of a report of 1,000 runs: ``python tests/benchmarks/report.py [--cells 1000]``.

Fills a real SQLite store with synthetic records (made-up numbers, marked as such in the grid's name and in every tag) through the
tracker that real runs use. Then it times the parts of `reports.run`: reading, tables, figures, page, and the total. The budgets
are 10 s for the tables and 40 s for the whole page.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from ablations.components import factorial
from ablations.grids import GRIDS, Grid
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.runs_folder import check
from reports import page
from reports.loading import select
from reports.report import make
from reports.writers import FORMATS, write
from rrpo.judges.config import KINDS
from rrpo.pipeline.stages import Context

sys.path.insert(0, str(Path(__file__).parents[1] / "ablations"))
import fakes

GRID = "synthetic"
ARMS = ["sft", "pretrained", *factorial(), "oracle", "placebo"]
RATE = 16000


def files(cell: fakes.FakeCell, folder: Path) -> dict[str, Path]:
    """Return a cell's files, as large as real ones: curves, checkpoints, samples, and audio for the first seed."""
    rng = np.random.default_rng(cell.seed * 100 + ARMS.index(cell.label))
    for stage in cell.stages.values():
        out = folder / stage.name
        out.mkdir(parents=True)
        build = getattr(fakes, stage.build.removeprefix("fakes:"))
        build(stage.config, {"samples": folder / "optimize"}, out, Context())
    _enlarge(folder / "score" / "samples.parquet", rng)
    found = {p.name: p for name in ("optimize", "score") for p in (folder / name).glob("*.parquet")}
    heard = pd.read_parquet(folder / "score" / "samples.parquet").query("prompt < 100")
    found |= {f"phonetics_{name}.parquet": folder / f"phonetics_{name}.parquet" for name in ("samples", "points")}
    heard[["step", "prompt"]].assign(third=heard["test"], tempo=4.0).to_parquet(found["phonetics_samples.parquet"])
    points = pd.read_parquet(found["test_points.parquet"])[["step", "test_accuracy"]]
    points.rename(columns={"test_accuracy": "third_accuracy"}).to_parquet(found["phonetics_points.parquet"])
    for place in range(10 if cell.seed == 1 else 0):  # page and figures use the audio of the first seed only
        path = folder / f"{place:02d}_{('angry', 'fearful', 'happy', 'sad', 'surprised')[place % 5]}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(2 * RATE), RATE, subtype="PCM_16")
        found[f"audio/{path.name}"] = path
    return found


def _enlarge(path: Path, rng: np.random.Generator) -> None:
    """Repeat the rows of a table of samples: 300 prompts per checkpoint, 1,200 at the last, with all columns of a real one."""
    table = pd.read_parquet(path)
    parts = []
    for step, rows in table.groupby("step"):
        prompts = np.arange(1200 if step == table["step"].max() else 300)
        parts.append(rows.iloc[prompts % len(rows)].assign(prompt=prompts))
    table = pd.concat(parts, ignore_index=True)
    flags = {f"artefact_{kind}": rng.random(len(table)) < 0.02 for kind in KINDS}
    logprobs = {f"{name}_logprob": -rng.random(len(table)) for name in ("proxy", "val", "test", "common")}
    table = table.assign(common=table["test"], tokens=40, seconds=1.6, **logprobs, **flags)
    table.to_parquet(path)


def fill(root: Path, cells: int) -> None:
    """Fill the store with arms x seeds until there are enough cells."""
    seeds = range(1, -(-cells // len(ARMS)) + 1)
    wanted = fakes.cells(ARMS, seeds)[:cells]
    folder = check(root)
    recorder.create(folder, GRID)
    tracker = Tracker(folder, GRID, {"git_sha": "synthetic", "synthetic": "true"}, {"synthetic": "true"})
    tracker.start_invocation(wanted, {"synthetic": "true"})
    for cell in wanted:
        with tempfile.TemporaryDirectory() as spare:
            scalars = {"rm_ece": 0.1, "rm_accuracy_test": 0.7 + 0.001 * cell.seed, "seconds_optimized": 100.0}
            tracker.record_cell(cell, scalars, files(cell, Path(spare)), "synthetic\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--runs-dir", type=Path, help="folder in which to keep the synthetic store, and reuse it")
    options = parser.parse_args()
    GRIDS.register(GRID, Grid(cells=lambda profile, seeds: fakes.cells(ARMS, seeds), profile="smoke"))
    with tempfile.TemporaryDirectory() as spare:
        root = options.runs_dir or Path(spare) / "runs"
        if not check(root).exists:
            print(f"filling a store with {options.cells} synthetic records")
            fill(root, options.cells)
        out = Path(spare) / "report"
        out.mkdir()
        clock = [(time.perf_counter(), time.process_time())]

        def lap(name: str) -> None:
            clock.append((time.perf_counter(), time.process_time()))
            wall, cpu = (now - before for now, before in zip(clock[-1], clock[-2], strict=True))
            print(f"{name:28s}{wall:8.2f} s{cpu:8.2f} s of CPU")

        selection = select(root, GRID)
        lap("read the store")
        made = make(selection)
        write(made.sheets, out, list(FORMATS))
        lap("tables")
        drawn = [figure for figure in made.figures if figure.draw(out)]
        lap("figures")
        page.write(selection, made, drawn, out)
        lap("page")
        page.keep(selection, sorted(out.iterdir()))
        lap("kept in MLflow")
        table, whole = ([clock[k][i] - clock[0][i] for i in (0, 1)] for k in (2, 4))
        print(f"tables of {len(selection.records)} runs: {table[0]:.1f} s ({table[1]:.1f} s of CPU) of 10 s")
        print(f"the whole page: {whole[0]:.1f} s ({whole[1]:.1f} s of CPU) of 40 s; {made.answer[0]}")


if __name__ == "__main__":
    main()

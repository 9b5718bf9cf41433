"""Gains according to several evaluators: the arm's own reward model, a common one, the judges, and the other arms' models.

Each arm is optimized against its own reward model, so gaps between proxy and gold are not comparable between arms. The table
therefore adds the gap by the seed's pre-trained reward model, which all arms share. A second table is the cross-RM transfer
matrix of `ablations.transfer`: the last samples of each arm, evaluated by the reward models of all arms of the seed.
Descriptive, not tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ablations.judges import gold, judges
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import FRAMES
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.reader import Store
from ablations.tracking.records import TRANSFER_CELL, TRANSFER_FILE, Record
from reports.loading import Selection

if TYPE_CHECKING:
    import pandas as pd

KIND = "transfer"
"""`ablations.tracking.records.TAG_KIND` of the runs that contain a matrix."""
NOTE = (
    "Gain in accuracy over the SFT policy at the last checkpoint, in points; mean over seeds ± half the 95 % "
    "t-interval. Common RM: the seed's pre-trained reward model, before any fine-tuning. Descriptive, not tested: "
    "every arm has a different reward model of its own."
)
MISSING = "Not evaluated by the other arms' reward models; to do so, run python -m ablations.transfer --grid {grid}."
MATRIX = (
    "Gain in accuracy over the SFT policy's samples, in points: last samples of each arm (rows), evaluated by each "
    "arm's reward model of the same seed (columns); mean over {seeds} seed(s). On the diagonal is the reward model "
    "that the arm was optimized against."
)


def columns() -> list[Column]:
    """Return the columns of evaluators, including every judge, and of the gaps between them."""
    return [
        Column("own", "by its own RM", "gain"),
        Column("common", "by the common RM", "gain"),
        *(Column(judge.name, f"by the {judge.label}", "gain") for judge in judges()),
        Column("own_gap", f"gap, own RM - {gold().label}", "gain"),
        Column("common_gap", f"gap, common RM - {gold().label}", "gain"),
    ]


def sheet(selection: Selection, matrices: Mapping[int, pd.DataFrame]) -> Sheet | None:
    """Return gains and gaps by arm; None if the common reward model evaluated no cell."""
    shown = columns()
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        cells = [gains(record) for record in selection.of(arm)]
        cells = [cell for cell in cells if math.isfinite(cell["own"])]
        if cells:
            means = (t_interval([cell[column.name] for cell in cells]) for column in shown)
            rows.append((arm, float(len(cells)), *means))
    used = [i for i in range(len(shown)) if any(isinstance(v, Interval) and v.n for v in (row[2 + i] for row in rows))]
    if "common" not in {shown[i].name for i in used}:
        return None
    head = (Column("arm", "arm"), Column("n", "n", "count"))
    body = tuple((*row[:2], *(row[2 + i] for i in used)) for row in rows)
    notes = (NOTE,) if matrices else (NOTE, MISSING.format(grid=selection.grid.partition("+")[0]))
    return Sheet("rulers", "Gains by evaluator", (*head, *(shown[i] for i in used)), body, notes, FRAMES)


def gains(record: Record) -> dict[str, float]:
    """Return one cell's gains and gaps under the names of `columns`; NaN if an evaluator was not run."""
    points = record.points
    evaluators = {"own": "proxy_accuracy", "common": "common_accuracy"} | {j.name: j.accuracy for j in judges()}
    changes = {
        name: float(points[column].iloc[-1] - points[column].iloc[0]) if column in points.columns else math.nan
        for name, column in evaluators.items()
    }
    return changes | {
        "own_gap": changes["own"] - changes[gold().name],
        "common_gap": changes["common"] - changes[gold().name],
    }


def load(selection: Selection) -> dict[int, pd.DataFrame]:
    """Return seed -> newest matrix whose arms are all cells of the selection."""
    import pandas as pd

    if selection.folder is None:
        return {}
    store = Store(selection.folder)
    known = {(record.label, record.seed): record.cell_hash for record in selection.records}
    matrices: dict[int, pd.DataFrame] = {}
    for grid in selection.grids:
        for run in store.runs(grid, KIND):
            seed = int(run.data.tags["seed"])
            cells = {
                k.removeprefix(TRANSFER_CELL): v for k, v in run.data.params.items() if k.startswith(TRANSFER_CELL)
            }
            path = store.artifacts_of(run) / TRANSFER_FILE
            if path.is_file() and all(known.get((arm, seed)) == cell for arm, cell in cells.items()):
                matrices[seed] = pd.read_parquet(path)
    return matrices


def matrix_sheet(selection: Selection, matrices: Mapping[int, pd.DataFrame]) -> Sheet | None:
    """Return the mean gains over seeds, samples by reward models, of the arms in every seed's matrix; None if there are none."""
    arms = [arm for arm in selection.arms if matrices and all(arm in set(t["judged_by"]) for t in matrices.values())]
    if not arms:
        return None
    gained = [
        table.assign(gain=table["accuracy"] - table["start_accuracy"])
        .pivot(index="samples_of", columns="judged_by", values="gain")
        .loc[arms, arms]
        .to_numpy()
        for table in matrices.values()
    ]
    columns = (Column("arm", "samples of"), *(Column(arm, f"RM of {arm}", "gain") for arm in arms))
    rows = [(arm, *row) for arm, row in zip(arms, np.mean(gained, axis=0).tolist(), strict=True)]
    note = MATRIX.format(seeds=len(matrices))
    return Sheet("transfer", "Cross-RM transfer", columns, tuple(rows), (note,), frozenset(arms))

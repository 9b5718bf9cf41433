"""Gains by several rulers: an arm's own reward model, the other arms', the common one, and the judges.

Each arm's proxy is its own ruler, so a hack gap by it compares arms with one another only through the rulers' differences.
Beside it stand the gap by the seed's pre-trained reward model, the same for all arms, and the cross-RM transfer matrix of
`ablations.transfer`: each arm's last samples heard by every other arm's reward model of that seed. Descriptive, not tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
"""`ablations.tracking.records.TAG_KIND` of the runs that hold a matrix."""
NOTE = (
    "Gain of accuracy over the SFT policy at the last checkpoint, in points; mean over seeds ± half the 95 % t-interval. "
    "Common RM: the seed's pre-trained reward model, before any fine-tuning. Descriptive, not tested: each arm's own reward "
    "model is another ruler."
)
MISSING = "The other arms' reward models have not been asked: python -m ablations.transfer --grid {grid}."
MATRIX = (
    "Gain of accuracy over the SFT policy's samples, in points, of each arm's last samples (rows) as each arm's reward model "
    "of the same seed (columns) hears them; mean over {seeds} seed(s). The diagonal is what was optimised."
)


def columns() -> list[Column]:
    """Evaluators, every judge among them, and the gaps between them."""
    return [
        Column("own", "by its own RM", "gain"),
        Column("others", "by the other arms' RMs", "gain"),
        Column("common", "by the common RM", "gain"),
        *(Column(judge.name, f"by the {judge.label}", "gain") for judge in judges()),
        Column("own_gap", f"gap, own RM - {gold().label}", "gain"),
        Column("common_gap", f"gap, common RM - {gold().label}", "gain"),
        Column("specific", "own RM - other RMs", "gain"),
    ]


def sheet(selection: Selection, matrices: Mapping[int, pd.DataFrame]) -> Sheet | None:
    """Gains and gaps by arm; None where nobody but the arm's own reward model was asked."""
    shown = columns()
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        found = [gains(record, matrices) for record in selection.of(arm)]
        found = [each for each in found if math.isfinite(each["own"])]
        if found:
            means = (t_interval([each[column.name] for each in found]) for column in shown)
            rows.append((arm, float(len(found)), *means))
    used = [k for k in range(len(shown)) if any(isinstance(v, Interval) and v.n for v in (row[2 + k] for row in rows))]
    if not {"common", "others"} & {shown[k].name for k in used}:
        return None
    head = (Column("arm", "arm"), Column("n", "n", "count"))
    kept = tuple(tuple([*row[:2], *(row[2 + k] for k in used)]) for row in rows)
    notes = (NOTE,) if matrices else (NOTE, MISSING.format(grid=selection.grid.partition("+")[0]))
    return Sheet("rulers", "Gains by several rulers", (*head, *(shown[k] for k in used)), kept, notes, FRAMES)


def gains(record: Record, matrices: Mapping[int, pd.DataFrame]) -> dict[str, float]:
    """One cell's gains and gaps by the names of `columns`; NaN where a ruler was not asked."""
    points = record.points
    evaluators = {"own": "proxy_accuracy", "common": "common_accuracy"} | {j.name: j.accuracy for j in judges()}
    found = {
        name: float(points[column].iloc[-1] - points[column].iloc[0]) if column in points.columns else math.nan
        for name, column in evaluators.items()
    }
    found["others"] = by_others(matrices[record.seed], record.label) if record.seed in matrices else math.nan
    return found | {
        "own_gap": found["own"] - found[gold().name],
        "common_gap": found["common"] - found[gold().name],
        "specific": found["own"] - found["others"],
    }


def by_others(matrix: pd.DataFrame, arm: str) -> float:
    """Mean gain of one arm's samples by the reward models of the others, but those that only frame them (`FRAMES`).

    Each reward model counts once, however many arms have it, and the arm's own counts as no other: models are the same that
    hear everything alike.
    """
    heard = matrix.pivot(index="judged_by", columns="samples_of", values="logprob")
    own = matrix[matrix["samples_of"] == arm].set_index("judged_by")
    gained = own["accuracy"] - own["start_accuracy"]
    if arm not in gained.index:
        return math.nan
    same = (heard == heard.loc[arm]).all(axis=1)
    others = [judge for judge in heard.index[~heard.duplicated()] if judge not in FRAMES and not same[judge]]
    return float(gained[others].mean()) if others else math.nan


def load(selection: Selection) -> dict[int, pd.DataFrame]:
    """The newest matrix of each seed whose arms are all cells of the selection."""
    import pandas as pd

    if selection.folder is None:
        return {}
    store = Store(selection.folder)
    known = {(record.label, record.seed): record.cell_hash for record in selection.records}
    found: dict[int, pd.DataFrame] = {}
    for grid in selection.grid.split("+"):
        for run in store.runs(grid, KIND):
            seed = int(run.data.tags["seed"])
            cells = {
                k.removeprefix(TRANSFER_CELL): v for k, v in run.data.params.items() if k.startswith(TRANSFER_CELL)
            }
            path = store.artifacts_of(run) / TRANSFER_FILE
            if path.is_file() and all(known.get((arm, seed)) == cell for arm, cell in cells.items()):
                found[seed] = pd.read_parquet(path)
    return found


def matrix(matrices: Mapping[int, pd.DataFrame], arms: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The arms that every seed's matrix has, in order, and mean gains ``[arm, judge]``."""
    shared = [arm for arm in arms if matrices and all(arm in set(t["judged_by"]) for t in matrices.values())]
    gained = [
        table.assign(gain=table["accuracy"] - table["start_accuracy"])
        .pivot(index="samples_of", columns="judged_by", values="gain")
        .loc[shared, shared]
        .to_numpy()
        for table in matrices.values()
    ]
    return shared, np.mean(gained, axis=0) if gained else np.zeros((0, 0))


def matrix_sheet(selection: Selection, matrices: Mapping[int, pd.DataFrame]) -> Sheet | None:
    """`matrix` as a table; None without one."""
    arms, gained = matrix(matrices, selection.arms)
    if not gained.size:
        return None
    columns = (Column("arm", "samples of"), *(Column(arm, f"RM of {arm}", "gain") for arm in arms))
    rows: tuple[tuple[Value, ...], ...] = tuple((arm, *row) for arm, row in zip(arms, gained.tolist(), strict=True))
    note = MATRIX.format(seeds=len(matrices))
    return Sheet("transfer", "Cross-RM transfer", columns, rows, (note,), frozenset(arms))

"""Gains according to several evaluators: the arm's own reward model, a common one, the judges, and the other arms' models.

Each arm is optimized against its own reward model, so gaps between proxy and gold are not comparable between arms. The table
therefore adds the gap by the seed's pre-trained reward model, which all arms share. A second table is the cross-RM transfer
matrix of `ablations.transfer`: the last samples of each arm, evaluated by the reward models of all arms of the seed.
Descriptive, not tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ablations.judges import gold, judges
from ablations.outcomes import Outcome, measured
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import by_arm
from ablations.stats.contrasts import SFT
from ablations.tracking.records import TRANSFER_CELL, TRANSFER_FILE, Record
from reports.loading import Selection

if TYPE_CHECKING:
    import pandas as pd

KIND = "transfer"
"""`ablations.tracking.records.TAG_KIND` of the runs that contain a matrix."""
NOTE = (
    "Gain in accuracy over the SFT policy at the last checkpoint, in points, on the same prompts; mean over seeds ± half "
    "the 95 % t-interval. Common RM: the seed's pre-trained reward model, before any fine-tuning. Descriptive, not tested: "
    "every arm has a different reward model of its own."
)
MISSING = "Not evaluated by the other arms' reward models; to do so, run python -m ablations.transfer --grid {grid}."
MATRIX = (
    "Gain in accuracy over the SFT policy's samples, in points: last samples of each arm (rows), evaluated by each "
    "arm's reward model of the same seed (columns); mean over {seeds} seed(s). On the diagonal is the reward model "
    "that the arm was optimized against."
)


def gains(records: Sequence[Record]) -> list[Outcome]:
    """Return the gains by each evaluator, including every judge, and the gaps between them; SFT is in ``records``."""
    sft = {record.seed: record for record in records if record.label == SFT}
    evaluators = {
        "own": ("by its own RM", "proxy_accuracy"),
        "common": ("by the common RM", "common_accuracy"),
        **{judge.name: (f"by the {judge.label}", judge.accuracy) for judge in judges()},
    }
    gaps = {name: f"gap, {name} RM - {gold().label}" for name in ("own", "common")}
    by_evaluator = {name: partial(_gain, column, sft) for name, (_, column) in evaluators.items()}
    by_gold = by_evaluator[gold().name]

    def gap(record: Record, name: str) -> float:
        return by_evaluator[name](record) - by_gold(record)

    return [
        *(Outcome(name=n, label=evaluators[n][0], unit="gain", read=read) for n, read in by_evaluator.items()),
        *(Outcome(name=f"{n}_gap", label=label, unit="gain", read=partial(gap, name=n)) for n, label in gaps.items()),
    ]


def _gain(column: str, sft: Mapping[int, Record], record: Record) -> float:
    """Return the change of a column of the trajectory from the first to the last checkpoint; NaN if it was not measured.

    A cell with one checkpoint was not optimized (guided decoding): it is compared with the SFT cell of its seed, whose own reward
    model is the same, the pre-trained one, unless it speaks as other speakers, for whom there is no such cell.
    """
    other_speakers = record.config.get("arm.reversal", "null") != "null"
    start = record if len(record.points) > 1 else None if other_speakers else sft.get(record.seed)
    if start is None or not all(column in cell.trajectory.columns for cell in (start, record)):
        return math.nan
    return float(record.trajectory[column].iloc[-1] - start.trajectory[column].iloc[0])


def sheet(selection: Selection, matrices: Mapping[int, pd.DataFrame]) -> Sheet | None:
    """Return gains and gaps by arm; None if the common reward model evaluated no cell."""
    own, *others = gains(selection.records)
    records = [record for record in selection.records if math.isfinite(own.read(record))]
    shown = [own, *(outcome for outcome in others if measured(outcome, records))]
    if "common" not in {outcome.name for outcome in shown}:
        return None
    notes = (NOTE,) if matrices else (NOTE, MISSING.format(grid=selection.grid.partition("+")[0]))
    return by_arm("rulers", "Gains by evaluator", records, shown, *notes)


def load(selection: Selection) -> dict[int, pd.DataFrame]:
    """Return seed -> newest matrix whose arms are all cells of the selection."""
    import pandas as pd

    if selection.folder is None:
        return {}
    known = {(record.label, record.seed): record.cell_hash for record in selection.records}
    matrices: dict[int, pd.DataFrame] = {}
    for grid in selection.grids:
        for run in selection.store.runs(grid, KIND):
            seed = int(run.data.tags["seed"])
            cells = {
                k.removeprefix(TRANSFER_CELL): v for k, v in run.data.params.items() if k.startswith(TRANSFER_CELL)
            }
            path = selection.store.artifacts_of(run) / TRANSFER_FILE
            if path.is_file() and all(known.get((arm, seed)) == cell for arm, cell in cells.items()):
                matrices[seed] = pd.read_parquet(path)
    return matrices


def matrix_sheet(selection: Selection, matrices: Mapping[int, pd.DataFrame]) -> Sheet | None:
    """Return the mean gains over seeds, samples by reward models, of the arms in every seed's matrix; None if there are none."""
    import pandas as pd

    arms = [arm for arm in selection.arms if matrices and all(arm in set(t["judged_by"]) for t in matrices.values())]
    if not arms:
        return None
    cells = pd.concat([table.assign(gain=table["accuracy"] - table["start_accuracy"]) for table in matrices.values()])
    gains = cells.groupby(["samples_of", "judged_by"])["gain"].mean()
    rows: list[dict[Column, Value]] = [
        {Column("arm", "samples of"): arm, **{Column(rm, f"RM of {rm}", "gain"): gains[arm, rm] for rm in arms}}
        for arm in arms
    ]
    return Sheet.of("transfer", "Cross-RM transfer", rows, MATRIX.format(seeds=len(matrices)))

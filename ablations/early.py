"""Early stopping read off a finished cell: the checkpoint that the `val` judge would have kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def best_checkpoint(points: pd.DataFrame) -> int:
    """The ``step`` of the checkpoint with the highest ``val_accuracy`` in a cell's points; of equal ones the earliest.

    Raises ValueError where no checkpoint has a ``val_accuracy``.
    """
    judged = points.dropna(subset="val_accuracy").sort_values("step")
    if judged.empty:
        raise ValueError("no checkpoint has a val_accuracy, so none is best; give the points of a cell with a policy")
    return int(judged["step"].to_numpy()[judged["val_accuracy"].to_numpy().argmax()])

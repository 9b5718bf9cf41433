"""Table of finished runs of `rrpo.cosyvoice.run.train`. Importing this module does not import torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rrpo.arms import name_of
from rrpo.errors import InputError

COLUMNS = {
    "rm_accuracy": "RM",
    "start_proxy_accuracy": "proxy before",
    "end_proxy_accuracy": "after",
    "start_val_accuracy": "judge before",
    "end_val_accuracy": "after",
    "end_kl_token": "KL/token",
    "end_length": "tokens",
    "end_cut": "cut",
}
"""Scalar -> heading. The reward model's unweighted accuracy is on held-out texts, the other values are on roll-outs."""


def compared(runs: Sequence[Path]) -> pd.DataFrame:
    """Return the scalars of `COLUMNS`, one row per run.

    Raises:
        InputError: A folder does not contain a finished run.
    """
    unfinished = [str(run) for run in runs if not (run / "scalars.json").is_file()]
    if unfinished:
        raise InputError(
            "not every folder contains a finished run",
            got=f"no scalars.json in {', '.join(unfinished)}",
            fix="give folders written by `python -m rrpo.cosyvoice train --out`",
        )
    arms = [name_of(json.loads((run / "settings.json").read_text("utf-8"))["switched_on"]) for run in runs]
    names = [f"{run.name} ({arm})" for run, arm in zip(runs, arms, strict=True)]
    scalars = pd.DataFrame([json.loads((run / "scalars.json").read_text("utf-8")) for run in runs], names)
    return scalars[list(COLUMNS)].set_axis(list(COLUMNS.values()), axis=1)


def render(table: pd.DataFrame) -> str:
    """Return a table as text, with a dash where nothing was measured."""
    return table.to_string(float_format="{:.3f}".format, na_rep="-")

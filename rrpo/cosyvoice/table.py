"""Table of finished runs of `rrpo.cosyvoice.run.train`. Importing this module does not import torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

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


def lines(runs: Sequence[Path]) -> Iterator[str]:
    """Yield a heading and one line per run.

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
    width = max(map(len, names))
    yield " " * width + "".join(f"  {heading:>12}" for heading in COLUMNS.values())
    for name, run in zip(names, runs, strict=True):
        scalars = json.loads((run / "scalars.json").read_text("utf-8"))
        yield f"{name:<{width}}" + "".join(f"  {scalars[column]:>12.3f}" for column in COLUMNS)

"""Finished runs of `rrpo.cosyvoice.run.train` side by side. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

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
"""Scalar -> its heading; the reward model's unweighted accuracy stands on held-out texts, the others on roll-outs."""


def lines(runs: Sequence[Path]) -> Iterator[str]:
    """A heading, and a line a run.

    Raises:
        ValueError: A folder holds no finished run.
    """
    unfinished = [str(run) for run in runs if not (run / "scalars.json").is_file()]
    if unfinished:
        raise InputError(
            "not every folder holds a finished run",
            got=f"no scalars.json in {', '.join(unfinished)}",
            fix="give what `python -m rrpo.cosyvoice train --out` wrote",
        )
    names = [f"{run.name} ({json.loads((run / 'settings.json').read_text('utf-8'))['arm']})" for run in runs]
    width = max(map(len, names))
    yield " " * width + "".join(f"  {heading:>12}" for heading in COLUMNS.values())
    for name, run in zip(names, runs, strict=True):
        scalars = json.loads((run / "scalars.json").read_text("utf-8"))
        yield f"{name:<{width}}" + "".join(f"  {scalars[column]:>12.3f}" for column in COLUMNS)

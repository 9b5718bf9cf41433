"""Compare the results of two builds of one cell: every scalar, and every column of every table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

TIMES = "seconds"
"""Prefix of the names of durations, which are not compared because they differ between runs."""
SHOWN = 20
"""Maximum number of differences that are printed."""


def size(recorded: ArrayLike, rebuilt: ArrayLike) -> NDArray[np.float64]:
    """Return |rebuilt - recorded| of ``[N]`` numbers, divided by |recorded| where that is above 1.

    It is 0 if both are NaN (not measured), and infinite if exactly one of them is.
    """
    a, b = np.asarray(recorded, float), np.asarray(rebuilt, float)
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(b - a) / np.maximum(1.0, np.abs(a)), nan=math.inf, posinf=math.inf)
    return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, distance)


def results(scalars: Mapping[str, float], files: Mapping[str, Path]) -> dict[str, pd.Series]:
    """Return all results of a cell except durations: finite scalars by name, number of rows and columns of tables.

    Args:
        scalars: The cell's scalars.
        files: Artifact name -> file; those that are not tables are ignored.
    """
    import pandas as pd

    series = {name: pd.Series([value]) for name, value in scalars.items() if math.isfinite(value)}
    for name, path in files.items():
        if name.endswith(".parquet"):
            table = pd.read_parquet(path)
            series[f"{name}: rows"] = pd.Series([float(len(table))])
            series |= {f"{name}: {column}": table[column] for column in table.columns}
    return {name: values for name, values in series.items() if not name.split(": ")[-1].startswith(TIMES)}


def compare(recorded: Mapping[str, pd.Series], rebuilt: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Compare the `results` of two builds: columns ``recorded, rebuilt, size``, indexed by the name of the result.

    Of each column of a table, the row with the largest difference is given; of text, the number of rows that differ. Columns of
    tables with different numbers of rows are not compared. A result that only one build has is NaN in the other.
    """
    import pandas as pd

    rows = {
        name: [0.0 if name in build else math.nan for build in (recorded, rebuilt)] for name in {*recorded, *rebuilt}
    }
    for name in recorded.keys() & rebuilt.keys():
        old, new = recorded[name], rebuilt[name]
        del rows[name]
        if len(old) != len(new) or not len(old):
            continue
        if "O" in (old.dtype.kind, new.dtype.kind):
            rows[f"{name}, rows unlike"] = [0.0, float((old.astype(str) != new.astype(str)).sum())]
        else:
            largest = int(size(old, new).argmax())
            rows[name] = [float(old.iloc[largest]), float(new.iloc[largest])]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["recorded", "rebuilt"]).sort_index()
    return table.assign(size=size(table["recorded"], table["rebuilt"]))


def verdict(numbers: pd.DataFrame, tolerance: float) -> tuple[bool, list[str]]:
    """Return whether all numbers of `compare` agree within the tolerance, and readable lines: differences and verdict."""
    unequal = numbers[numbers["size"] > 0].sort_values("size", ascending=False, kind="stable")
    lines = [f"{len(unequal)} of {len(numbers)} numbers differ; recorded -> now (difference):"] if len(unequal) else []
    lines += [
        f"  {row.Index}: {row.recorded:.6g} -> {row.rebuilt:.6g} ({row.size:.2g})"
        for row in unequal[:SHOWN].itertuples()
    ]
    lines += [f"  ... and {len(unequal) - SHOWN} more"] if len(unequal) > SHOWN else []
    equal = bool((numbers["size"] <= tolerance).all())
    required = f"within {tolerance:g} (absolute; relative above 1)" if tolerance else "to the last bit"
    how = "bit-equal" if not len(unequal) else f"equal {required}"
    word, relation = ("REPRODUCED", how) if equal else ("NOT REPRODUCED", f"required to be equal {required}")
    return equal, [*lines, f"{word}: {len(numbers)} numbers compared, {relation}."]

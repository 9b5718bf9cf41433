"""Compare the results of two builds of one cell: every scalar, and every column of every table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TIMES = "seconds"
"""Prefix of the names of durations, which are not compared because they differ between runs."""
SHOWN = 20
"""Maximum number of differences that are printed."""


@dataclass(frozen=True)
class Difference:
    """A recorded number and its rebuilt value."""

    name: str
    """Name of the scalar, or ``table: column``."""
    recorded: float
    """Recorded value; NaN if it was not recorded."""
    rebuilt: float
    """Rebuilt value; NaN if it was not rebuilt."""

    @property
    def size(self) -> float:
        """|rebuilt - recorded|, divided by |recorded| if that is above 1; infinite if exactly one of them is missing."""
        if self.recorded == self.rebuilt or (math.isnan(self.recorded) and math.isnan(self.rebuilt)):
            return 0.0
        size = abs(self.rebuilt - self.recorded) / max(1.0, abs(self.recorded))
        return math.inf if math.isnan(size) else size


@dataclass(frozen=True)
class Comparison:
    """A record compared with a second build of its cell."""

    numbers: list[Difference]
    """Every compared number, including equal ones."""
    software: dict[str, tuple[str, str]]
    """Differences between the environments of the two builds: name -> (recorded, now)."""
    device: str
    """Device of the second build."""

    @property
    def exact(self) -> bool:
        """Whether the results must be bit-identical: same software, on the CPU."""
        return not self.software and self.device == "cpu"

    def equal(self, tolerance: float) -> bool:
        """Return whether all numbers agree within the tolerance, which is 0 if `exact`."""
        return all(number.size <= (0.0 if self.exact else tolerance) for number in self.numbers)

    def lines(self, tolerance: float) -> list[str]:
        """Return readable lines: differences of the environment, the largest differences of numbers, the verdict."""
        lines = [
            f"  {name}: {before} when recorded, {now} now" for name, (before, now) in sorted(self.software.items())
        ]
        out = ["Environment:", *lines] if lines else ["Environment: the same software and processor as recorded."]
        unequal = sorted((number for number in self.numbers if number.size > 0), key=lambda number: -number.size)
        if unequal:
            out.append(f"{len(unequal)} of {len(self.numbers)} numbers differ; recorded -> now (difference):")
            out += [
                f"  {number.name}: {number.recorded:.6g} -> {number.rebuilt:.6g} ({number.size:.2g})"
                for number in unequal[:SHOWN]
            ]
            out += [f"  ... and {len(unequal) - SHOWN} more"] if len(unequal) > SHOWN else []
        required = "to the last bit" if self.exact else f"within {tolerance:g} (absolute; relative above 1)"
        if self.equal(tolerance):
            how = "bit-equal" if not unequal else f"equal {required}"
            return [*out, f"REPRODUCED: {len(self.numbers)} numbers compared, {how}."]
        return [*out, f"NOT REPRODUCED: {len(self.numbers)} numbers compared, required to be equal {required}."]


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


def compare(recorded: Mapping[str, pd.Series], rebuilt: Mapping[str, pd.Series]) -> list[Difference]:
    """Compare the `results` of two builds; of each column, return the row with the largest difference.

    Columns of tables with different numbers of rows are not compared.
    """
    result = []
    for name in sorted(recorded.keys() | rebuilt.keys()):
        if name not in recorded or name not in rebuilt:
            result.append(Difference(name, *(0.0 if name in build else math.nan for build in (recorded, rebuilt))))
            continue
        old, new = recorded[name], rebuilt[name]
        if len(old) != len(new):
            continue
        if old.dtype.kind in "bifu" and new.dtype.kind in "bifu":
            pairs = zip(old.astype(float), new.astype(float), strict=True)
            result += sorted((Difference(name, a, b) for a, b in pairs), key=lambda pair: -pair.size)[:1]
        else:  # text: count the rows that differ
            result.append(Difference(f"{name}, rows unlike", 0.0, float((old.astype(str) != new.astype(str)).sum())))
    return result

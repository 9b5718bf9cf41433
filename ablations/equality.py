"""Compare the results of two builds of one cell: every scalar, and every column of every table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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
        if math.isnan(self.recorded) and math.isnan(self.rebuilt):
            return 0.0
        if math.isnan(self.recorded) or math.isnan(self.rebuilt):
            return math.inf
        if self.recorded == self.rebuilt:
            return 0.0
        return abs(self.rebuilt - self.recorded) / max(1.0, abs(self.recorded))


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
        said = [f"  {name}: {before} when recorded, {now} now" for name, (before, now) in sorted(self.software.items())]
        out = ["Environment:", *said] if said else ["Environment: the same software and processor as recorded."]
        unequal = sorted((n for n in self.numbers if n.size > 0), key=lambda n: -n.size)
        if unequal:
            out.append(f"{len(unequal)} of {len(self.numbers)} numbers differ; recorded -> now (difference):")
            out += [f"  {n.name}: {n.recorded:.6g} -> {n.rebuilt:.6g} ({n.size:.2g})" for n in unequal[:SHOWN]]
            out += [f"  ... and {len(unequal) - SHOWN} more"] if len(unequal) > SHOWN else []
        required = "to the last bit" if self.exact else f"within {tolerance:g} (absolute; relative above 1)"
        if self.equal(tolerance):
            how = "bit-equal" if not unequal else f"equal {required}"
            return [*out, f"REPRODUCED: {len(self.numbers)} numbers compared, {how}."]
        return [*out, f"NOT REPRODUCED: {len(self.numbers)} numbers compared, required to be equal {required}."]


def scalars(recorded: Mapping[str, float], rebuilt: Mapping[str, float]) -> list[Difference]:
    """Compare all scalars except durations. Non-finite rebuilt values are ignored, because records hold finite values only."""
    finite = {name: value for name, value in rebuilt.items() if math.isfinite(value)}
    names = sorted(name for name in recorded.keys() | finite.keys() if not name.startswith(TIMES))
    return [Difference(name, recorded.get(name, math.nan), finite.get(name, math.nan)) for name in names]


def tables(recorded: Path, rebuilt: Mapping[str, Path]) -> list[Difference]:
    """Compare tables column by column, reporting for each column the row with the largest difference.

    Args:
        recorded: Folder of the record's artifacts.
        rebuilt: Name -> rebuilt file.
    """
    here = {name: path for name, path in rebuilt.items() if name.endswith(".parquet")}
    there = {path.relative_to(recorded).as_posix(): path for path in recorded.rglob("*.parquet")}
    found: list[Difference] = []
    for name in sorted(here.keys() | there.keys()):
        if name in here and name in there:
            found += _columns(name, _read(there[name]), _read(here[name]))
        else:
            found.append(Difference(name, 0.0 if name in there else math.nan, 0.0 if name in here else math.nan))
    return found


def _columns(name: str, recorded: pd.DataFrame, rebuilt: pd.DataFrame) -> Iterable[Difference]:
    rows = Difference(f"{name}: rows", float(len(recorded)), float(len(rebuilt)))
    if rows.size:
        return [rows]
    found = [rows]
    for column in dict.fromkeys([*recorded.columns, *rebuilt.columns]):
        label = f"{name}: {column}"
        if str(column).startswith(TIMES):
            continue
        if column not in recorded.columns or column not in rebuilt.columns:
            found.append(
                Difference(label, 0.0 if column in recorded else math.nan, 0.0 if column in rebuilt else math.nan)
            )
        elif recorded[column].dtype.kind in "bifu" and rebuilt[column].dtype.kind in "bifu":
            pairs = zip(recorded[column].astype(float), rebuilt[column].astype(float), strict=True)
            found.append(max((Difference(label, a, b) for a, b in pairs), key=lambda d: d.size, default=rows))
        else:  # text columns: count the rows that differ
            unlike = sum(str(a) != str(b) for a, b in zip(recorded[column], rebuilt[column], strict=True))
            found.append(Difference(f"{label}, rows unlike", 0.0, float(unlike)))
    return found


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)

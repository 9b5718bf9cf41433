"""Compare what two builds of one cell measured: every scalar, every column of every table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TIMES = "seconds"
"""Start of the names of what measures time, which no second run repeats."""


@dataclass(frozen=True)
class Difference:
    """One number that was recorded, and its rebuilt value."""

    name: str
    """Scalar, or ``table: column``."""
    recorded: float
    """NaN where it was not recorded."""
    rebuilt: float
    """NaN where it was not rebuilt."""

    @property
    def size(self) -> float:
        """|rebuilt - recorded|, relative to |recorded| where that is above 1; infinite where one of them is missing."""
        if math.isnan(self.recorded) and math.isnan(self.rebuilt):
            return 0.0
        if math.isnan(self.recorded) or math.isnan(self.rebuilt):
            return math.inf
        if self.recorded == self.rebuilt:
            return 0.0
        return abs(self.rebuilt - self.recorded) / max(1.0, abs(self.recorded))


def scalars(recorded: Mapping[str, float], rebuilt: Mapping[str, float]) -> list[Difference]:
    """Every scalar but the times; one that is not finite was not recorded."""
    finite = {name: value for name, value in rebuilt.items() if math.isfinite(value)}
    names = sorted(name for name in recorded.keys() | finite.keys() if not name.startswith(TIMES))
    return [Difference(name, recorded.get(name, math.nan), finite.get(name, math.nan)) for name in names]


def tables(recorded: Path, rebuilt: Mapping[str, Path]) -> list[Difference]:
    """Of every table, each column's row that differs most; ``recorded`` is a folder, ``rebuilt`` gives files by name."""
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
        else:  # words: how many rows are unlike
            unlike = sum(str(a) != str(b) for a, b in zip(recorded[column], rebuilt[column], strict=True))
            found.append(Difference(f"{label}, rows unlike", 0.0, float(unlike)))
    return found


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)

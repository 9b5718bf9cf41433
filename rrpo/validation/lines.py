"""Lines of the validation report, and interval estimates as pure functions of arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

LEVEL = 0.95
"""Confidence level of every interval."""
LINES = "lines.json"
"""File with a section's lines, in its stage's folder; tables may lie beside it."""
NOT_INSTALLED = "not installed"
"""Note of a line whose optional package is missing; the line counts neither as passed nor as failed."""


class Estimate(TypedDict, total=False):
    """A value with its interval, as fields of `Line`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One measured value of the world, and its required range."""

    section: str
    """Heading of the section."""
    name: str
    """What is measured."""
    value: float = math.nan
    """NaN if it could not be measured; ``note`` says why."""
    low: float = math.nan
    """Lower end of the 95 % interval; NaN for a count without one."""
    high: float = math.nan
    """Upper end of the interval."""
    at_least: float | None = None
    """Lower threshold."""
    at_most: float | None = None
    """Upper threshold."""
    decided_by: str = "value"
    """``value``, or ``low``: the lower end of the interval must lie strictly above the threshold ("more than chance")."""
    note: str = ""
    """Remark shown beside the value."""

    @property
    def passed(self) -> bool | None:
        """Whether the value meets its thresholds; None without a threshold, or if a missing package left no value."""
        if (self.at_least is None and self.at_most is None) or self.note == NOT_INSTALLED:
            return None
        if self.decided_by == "low":
            return self.at_least is not None and bool(self.low > self.at_least)
        above = self.at_least is None or self.value >= self.at_least
        return bool(above and (self.at_most is None or self.value <= self.at_most))

    @property
    def threshold(self) -> str:
        """``>= .9``, ``<= .1``, both, or a dash."""
        sign = "interval >" if self.decided_by == "low" else ">="
        parts = [] if self.at_least is None else [f"{sign} {self.at_least:g}"]
        return " and ".join(parts + ([] if self.at_most is None else [f"<= {self.at_most:g}"])) or "-"


def save(lines: Sequence[Line], path: Path) -> None:
    """Write lines as JSON; NaN becomes null."""
    rows = [{key: None if _is_nan(value) else value for key, value in asdict(line).items()} for line in lines]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")


def load(path: Path) -> list[Line]:
    """Read the lines written by `save`."""
    numbers = ("value", "low", "high")
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        row |= {name: math.nan for name in numbers if row[name] is None}
    return [Line(**row) for row in rows]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def share(hits: Sequence[bool] | np.ndarray) -> Estimate:
    """Return the share of True with Wilson's interval; NaN without samples."""
    n = len(hits)
    if n == 0:
        return {"value": math.nan}
    from scipy.stats import binomtest

    count = int(np.count_nonzero(hits))
    interval = binomtest(count, n).proportion_ci(LEVEL, "wilson")
    return {"value": count / n, "low": float(interval.low), "high": float(interval.high)}


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, resamples: int, seed: int = 0) -> Estimate:
    """Return ``statistic`` of all n samples with its percentile-bootstrap interval.

    Args:
        statistic: Function of the row numbers of samples.
        n: Number of samples; values of one sample are resampled together.
        resamples: Number of resamples; those with a non-finite value are dropped.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    draws = np.array([statistic(rng.integers(n, size=n)) for _ in range(resamples)])
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) if len(draws) else (math.nan, math.nan)
    return {"value": float(statistic(np.arange(n))), "low": float(low), "high": float(high)}


def ratio(numerators: np.ndarray, denominators: np.ndarray, resamples: int) -> Estimate:
    """Return sum of ``numerators [n]`` over sum of ``denominators [n]``: a relative accuracy, a phone error rate."""
    top, bottom = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    return bootstrap(lambda rows: _divide(top[rows].sum(), bottom[rows].sum()), len(top), resamples)


def mean(values: np.ndarray, resamples: int) -> Estimate:
    """Return the mean of ``values [n]``; use differences if each sample was measured twice."""
    return ratio(values, np.ones(len(values)), resamples)


def _divide(top: float, bottom: float) -> float:
    return float(top / bottom) if bottom else math.nan

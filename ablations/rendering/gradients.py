"""The page of `ablations.gradients`: tables that compare gradients at each policy, from the values by seed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pandas as pd

from ablations.rendering.sheet import Column, Sheet, Value, markdown, show
from ablations.stats.statistics import Interval, t_interval

CSV = "gradients.csv"
"""File of the values by seed."""
AGAINST = "reinforce"
"""The method to which ratios are taken."""
MEASURES = {
    "variance": "variance of a batch's gradient",
    "relative_variance": "variance / signal",
    "cosine": "cosine of two batches",
    "bias": "squared bias / squared true gradient",
    "alignment": "alignment with the true gradient",
    "gain_per_nat": "proxy gain per nat of KL",
    "gain_per_1000_rollouts": "proxy gain per 1,000 roll-outs",
    "gain_per_minute": "proxy gain per minute",
}
"""Measure of every method -> label."""
ONCE = {
    "reference_noise": "reference for bias and alignment: noise variance / squared norm",
    "swap_held": "one token swapped, others held: correlation of DiffRO's prediction and true change of reward",
    "swap_redrawn": "one token swapped, later ones redrawn: the same correlation",
    "swap_reliability": "share of the latter true change's variance that is not sampling noise",
    "swap_spread_held": "standard deviation of the true change, others held, nats",
    "swap_spread_redrawn": "the same, later ones redrawn, without sampling noise, nats",
}
"""Measure made once per policy -> label."""
BREAK = re.compile(r"(?<=\[)(\S+), (?=\S+\])")
"""Where a narrow cell would break within an interval."""
NOTE = (
    "Policies: SFT; peak, each seed's checkpoint with the highest accuracy by the val judge; end. True gradient: mean of "
    "REINFORCE's gradients on many other batches. Signal: squared norm of a method's mean gradient; variance: of one batch's "
    "gradient around it; alignment: cosine of the mean gradient and the true one, corrected for noise. Mean over seeds with its "
    "95 % t-interval, with n where some seeds have no value, because noise exceeds what the measure is relative to. "
    f"Ratio: geometric mean over seeds of a method's value to {AGAINST}'s, with its interval, if both are above 0 in every seed. "
    "Not tested. GRPO normalizes rewards and divides by length, so that its variance and bias are on another scale. "
    "`rrpo/diagnostics/gradients.py` defines the measures."
)


def ratio(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Return the geometric mean of the paired ratios over seeds, with its interval.

    It has no value unless all numbers are above 0, because leaving out seeds by their values would bias it.
    """
    pairs = list(zip(values, baseline, strict=True))
    if not all(a > 0 and b > 0 for a, b in pairs):
        return Interval(math.nan, math.nan, math.nan, 0)
    log_ratio = t_interval([math.log(a / b) for a, b in pairs])
    return Interval(math.exp(log_ratio.mean), math.exp(log_ratio.low), math.exp(log_ratio.high), log_ratio.n)


def sheets(table: pd.DataFrame) -> list[Sheet]:
    """Return two tables per policy with `MEASURES`, means and ratios, and one of all policies with `ONCE`.

    The rows of ``table`` are one per seed, policy (``place``, ``updates``) and method.
    """
    measure = Column("measure", "measure")
    found: list[Sheet | None] = []
    once: list[dict[Column, Value]] = [{measure: label} for label in ONCE.values()]
    for place, group in table.groupby("place", sort=False):
        by_method = {str(method): rows.set_index("seed") for method, rows in group.groupby("method", sort=False)}
        base, seeds = by_method[AGAINST], group["seed"].nunique()
        means: list[dict[Column, Value]] = []
        ratios: list[dict[Column, Value]] = []
        for name, label in MEASURES.items():
            columns = {Column(method, method, "digits"): rows[name] for method, rows in by_method.items()}
            means.append({measure: label, **{column: _mean(each, seeds) for column, each in columns.items()}})
            paired = {
                column: ratio(each.tolist(), base.loc[each.index, name].tolist())
                for column, each in columns.items()
                if column.name != AGAINST
            }
            if any(interval.n for interval in paired.values()):
                ratios.append({measure: label, **paired})
        found.append(Sheet.of(str(place), f"{place}, after {_listed(group['updates'])} updates", means))
        found.append(Sheet.of(f"{place}-ratios", f"{place}, ratios to {AGAINST}", ratios))
        for row, name in zip(once, ONCE, strict=True):
            row[Column(str(place), str(place), "digits")] = _mean(group.groupby("seed")[name].first(), seeds)
    return [sheet for sheet in (*found, Sheet.of("once", "Once per policy", once)) if sheet]


def _mean(values: pd.Series, seeds: int) -> str:
    """Return the mean with its interval, and the number of values if some seeds have none."""
    mean = t_interval(values.to_numpy(float))
    return show(mean, "digits") + (f" (n = {mean.n})" if 0 < mean.n < seeds else "")


def page(table: pd.DataFrame) -> str:
    """Return all tables as Markdown."""
    arm, profile = (", ".join(table[name].unique()) for name in ("arm", "profile"))
    seeds = f"n = {table['seed'].nunique()} seeds ({_listed(table['seed'])})"
    parts = [
        f"# Gradients of arm {arm}",
        f"Written by `python -m ablations.gradients`; profile {profile}, {seeds}. {NOTE}",
    ]
    for sheet in sheets(table):
        unbroken = BREAK.sub("\\1,\u00a0", markdown(sheet))
        parts.append(f"## {sheet.title}\n\n{unbroken}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _listed(numbers: pd.Series) -> str:
    """Return the distinct numbers, ascending, as text."""
    return ", ".join(map(str, sorted(set(numbers.tolist()))))

"""The page of `ablations.gradients`: tables that compare gradients at each policy, from the values by seed."""

from __future__ import annotations

import math
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
    "reference_noise": "noise variance of the reference / its squared norm",
    "swap_held": "correlation of predicted and true change of reward by one token, others held",
    "swap_redrawn": "correlation of predicted and true change of reward by one token, later ones redrawn",
    "swap_reliability": "share of the latter true change's variance that is not sampling noise",
    "swap_spread_held": "standard deviation of the true change, others held, nats",
    "swap_spread_redrawn": "standard deviation of the true change, later ones redrawn, without sampling noise, nats",
    "gain_per_nat": "proxy gain per nat of KL",
    "gain_per_1000_rollouts": "proxy gain per 1,000 roll-outs",
    "gain_per_minute": "proxy gain per minute",
}
"""Column of the table -> label."""
NOTE = (
    "Mean over seeds with its 95 % t-interval; n if seeds are missing, in which noise hides what the measure is relative to. "
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
    """Return one table per policy of ``table``, which has one row per seed, policy (``place``, ``updates``) and method."""
    found = []
    for place, group in table.groupby("place", sort=False):
        by_method = {str(method): rows.set_index("seed") for method, rows in group.groupby("method", sort=False)}
        base, seeds = by_method[AGAINST], group["seed"].nunique()
        body: list[dict[Column, Value]] = []
        for name, label in MEASURES.items():
            row: dict[Column, Value] = {Column("measure", "measure"): label}
            for method, rows in by_method.items():
                mean = t_interval(rows[name].to_numpy(float))
                missing = f" (n = {mean.n})" if 0 < mean.n < seeds else ""
                row[Column(method, method, "digits")] = f"{show(mean, 'digits')}{missing}"
            for method, rows in by_method.items():
                if method != AGAINST:
                    paired = ratio(rows[name].tolist(), base.loc[rows.index, name].tolist())
                    row[Column(f"{method}_ratio", f"{method} / {AGAINST}", "digits")] = paired
            body.append(row)
        sheet = Sheet.of("gradients", f"{place}, after {_listed(group['updates'])} updates", body)
        found += [sheet] if sheet else []
    return found


def page(table: pd.DataFrame) -> str:
    """Return all tables as Markdown."""
    arm, profile = (", ".join(table[name].unique()) for name in ("arm", "profile"))
    seeds = f"n = {table['seed'].nunique()} seeds ({_listed(table['seed'])})"
    parts = [
        f"# Gradients of arm {arm}",
        f"Written by `python -m ablations.gradients`; profile {profile}, {seeds}. {NOTE}",
    ]
    parts += [f"## {sheet.title}\n\n{markdown(sheet)}" for sheet in sheets(table)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _listed(numbers: pd.Series) -> str:
    """Return the distinct numbers, ascending, as text."""
    return ", ".join(map(str, sorted(set(numbers.tolist()))))

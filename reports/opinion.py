"""Listeners' ratings by arm: emotion accuracy, E-MOS and N-MOS, with intervals over raters and seeds.

Ratings of one person are alike, and so are ratings of one seed's policies. The variance of a mean is clustered both ways
(Cameron, Gelbach, Miller 2011): V = V_rater + V_seed - V_rater,seed, with V_g the sum of squared cluster sums of residuals over
N^2 times G / (G - 1), and never below the larger of the two; t with Satterthwaite's degrees of freedom. With one seed it is the
rater alone. Simulated for 4 to 24 raters of 3 to 8 seeds it covers 94 to 98 %; by raters alone it would be 53 to 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ablations.judges import gold
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import FRAMES
from ablations.stats.statistics import Interval
from ablations.tracking.records import HUMAN, Record
from reports.loading import Selection

if TYPE_CHECKING:
    import pandas as pd

Opinions = dict[str, dict[str, Interval]]
"""Key of `HUMAN` -> arm -> mean opinion."""
NOBODY = "Everything is simulated: no human has listened."


def interval(values: ArrayLike, raters: ArrayLike, seeds: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of ``values [N]`` by ``raters [N]`` on ``seeds [N]``.

    n counts the raters; the bounds are NaN below two of them, and without spread.
    """
    x = np.asarray(values, float)
    if not len(x):
        return Interval(math.nan, math.nan, math.nan, 0)
    rater, seed = (np.unique(np.asarray(g), return_inverse=True)[1] for g in (raters, seeds))
    n = int(rater.max()) + 1
    mean = float(x.mean())
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    from scipy.special import stdtrit

    by_rater, df_rater = _clustered(x - mean, rater)
    by_seed, df_seed = _clustered(x - mean, seed)
    both, _ = _clustered(x - mean, rater * (int(seed.max()) + 1) + seed)
    variance = max(by_rater + by_seed - both, by_rater, by_seed)
    if variance == 0:
        return Interval(mean, math.nan, math.nan, n)  # all alike: that says nothing of the next rater
    # Satterthwaite, but no fewer than the smaller of the two; a single seed has no spread that could be known
    parts = [v * v / df for v, df in ((by_rater, df_rater), (by_seed, df_seed)) if df > 0]
    df = max(variance**2 / sum(parts), min(d for d in (df_rater, df_seed) if d > 0))
    half = float(stdtrit(df, (1 + level) / 2)) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, n)


def _clustered(residual: np.ndarray, cluster: np.ndarray) -> tuple[float, int]:
    """Variance of the mean by one clustering, and its degrees of freedom; 0 and 0 for a single cluster."""
    groups = len(np.unique(cluster))
    if groups < 2:
        return 0.0, 0
    sums = np.bincount(cluster, residual)
    return float((sums**2).sum() / len(residual) ** 2 * groups / (groups - 1)), groups - 1


def means(ratings: pd.DataFrame) -> Opinions:
    """E-MOS and N-MOS of every rated arm; empty without ratings."""
    return {
        name: {str(arm): interval(own[column], own["rater"], own["seed"]) for arm, own in ratings.groupby("arm")}
        for name, column in HUMAN.items()
        if len(ratings)
    }


def heard(ratings: pd.DataFrame) -> str:
    """What is real and who has listened, one sentence."""
    if ratings.empty:
        return NOBODY
    raters = ratings["rater"].nunique()
    people = "one person" if raters == 1 else f"{raters} people"
    return f"Everything is simulated but the listeners: {len(ratings)} ratings by {people} (table of listening)."


def sheet(selection: Selection, ratings: pd.DataFrame, control: str) -> Sheet | None:
    """One row a rated arm, beside its difference to the control on the same prompts, seeds and raters; None without ratings."""
    if ratings.empty:
        return None
    ratings = ratings.merge(_gold(selection.records), on=["arm", "seed", "prompt"], how="left")
    keys = ["rater", "seed", "prompt"]
    rows: list[tuple[Value, ...]] = []
    for arm in [arm for arm in selection.arms if (ratings["arm"] == arm).any()]:
        own = ratings[ratings["arm"] == arm]
        judged = own[own["gold"].notna()]
        pairs = own.merge(ratings[ratings["arm"] == control], on=keys, suffixes=("", "_control"))
        pairs = pairs if arm != control else pairs.iloc[:0]
        rows.append(
            (
                arm,
                *(float(own[name].nunique()) for name in ("rater", "seed")),
                float(len(own)),
                interval(own["emotion"] == own["target"], own["rater"], own["seed"]),
                interval(judged["emotion"] == judged["gold"], judged["rater"], judged["seed"]),
                *(interval(own[name], own["rater"], own["seed"]) for name in HUMAN.values()),
                *(
                    interval(pairs[name] - pairs[f"{name}_control"], pairs["rater"], pairs["seed"])
                    for name in HUMAN.values()
                ),
            )
        )
    return Sheet("listening", "Listening test", _columns(control), tuple(rows), tuple(_notes(ratings, control)), FRAMES)


def _columns(control: str) -> tuple[Column, ...]:
    return (
        Column("arm", "arm"),
        Column("raters", "raters", "count"),
        Column("seeds", "seeds", "count"),
        Column("ratings", "ratings", "count"),
        Column("human_accuracy", "emotion as asked, %", "percent", +1),
        Column("human_gold", f"as the {gold().label}, %", "percent"),
        Column("human_emos", "E-MOS", "mark", +1),
        Column("human_nmos", "N-MOS", "mark", +1),
        Column("emos_difference", f"E-MOS - {control}", "effect"),
        Column("nmos_difference", f"N-MOS - {control}", "effect"),
    )


def _notes(ratings: pd.DataFrame, control: str) -> list[str]:
    raters, seeds, prompts = (ratings[name].nunique() for name in ("rater", "seed", "prompt"))
    done = ratings.groupby(["test", "rater"]).size()
    scope = (
        "by raters; one seed: it speaks about these policies, not about others of the kind"
        if seeds == 1
        else "by raters and by seeds (clustered two ways, t with Satterthwaite's degrees of freedom)"
    )
    bounds = ", none for one rater" if raters < 2 else ""
    return [
        f"{len(ratings)} ratings; people: {raters}, ratings each: {done.min()} to {done.max()}, seeds: {seeds}, prompts: "
        f"{prompts}. Blind, in an order of each person's own; forced choice of the emotion; expressiveness (E-MOS) and "
        "naturalness (N-MOS) from 1 bad to 5 excellent.",
        f"Mean ± half the 95 % interval {scope}{bounds}; differences to {control}, with both bounds, by the same person on the "
        "same prompt and seed. The prompts are fixed. Secondary, not tested.",
    ]


def _gold(records: Sequence[Record]) -> pd.DataFrame:
    """What the gold judge heard in every last sample: arm, seed, prompt, gold."""
    import pandas as pd

    found = [pd.DataFrame({"arm": [], "seed": [], "prompt": [], "gold": []}).astype({"seed": int, "prompt": int})]
    for record in records:
        if gold().name in record.samples.columns:
            last = record.samples[record.samples["step"] == record.samples["step"].max()]
            heard = last[["prompt", gold().name]].rename(columns={gold().name: "gold"})
            found.append(heard.assign(arm=record.label, seed=record.seed))
    return pd.concat(found, ignore_index=True)

"""Emotion recognition on the user's own test sets, like RRPO's Table 2: accuracies of each reward model, and effects."""

from __future__ import annotations

import numpy as np

from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import scalar
from ablations.stats.contrasts import apply, corner_effects, main_effects, overall
from ablations.stats.family import margin_text
from ablations.stats.statistics import t_interval
from reports.loading import Selection
from reports.verdicts import simultaneous, verdict

WEIGHTED, UNWEIGHTED = "rm_wa_", "rm_ua_"
"""Prefixes of the scalars of a test set, see `rrpo.diagnostics.examine.build_test_set`."""


def sets_examined(selection: Selection) -> list[str]:
    """Return the names of the user's own test sets on which some reward model was evaluated."""
    names = {name for record in selection.records for name in record.scalars}
    return sorted(name.removeprefix(UNWEIGHTED) for name in names if name.startswith(UNWEIGHTED))


def columns(selection: Selection) -> list[Column]:
    """Return the columns of WA and UA on every test set, for the table of reward models."""
    return [
        Column(f"{start}{name}", f"{name}, {measure}, %", "percent", +1)
        for name in sets_examined(selection)
        for start, measure in ((WEIGHTED, "WA"), (UNWEIGHTED, "UA"))
    ]


def notes(selection: Selection) -> list[str]:
    """Return the caption of `columns`; empty without a test set."""
    sets = sets_examined(selection)
    counts = [
        f"{name}: {_mean(selection, f'rm_n_{name}')} utterances, {_mean(selection, f'rm_left_out_{name}')} excluded, whose "
        "emotion is not among the reward model's classes"
        for name in sets
    ]
    if not sets:
        return []
    return [
        "WA: share of utterances recognized; UA: mean recall over the emotions in the set. Mean over seeds (or folds of "
        f"speakers, one per seed) ± half the 95 % t-interval. {'; '.join(counts)}."
    ]


def effects(selection: Selection) -> Sheet | None:
    """Return each regularizer's effect on UA, over the factorial and within RRPO, on every test set; None if no seed has the
    arms."""
    contrasts = main_effects() | corner_effects() | overall()
    level = simultaneous(contrasts)
    seeds = sorted({record.seed for record in selection.records})
    rows: list[tuple[Value, ...]] = []
    for name in sets_examined(selection):
        values = scalar(f"{UNWEIGHTED}{name}", selection.records)
        for contrast, weights in contrasts.items():
            x = apply(weights, values, seeds)
            x = x[np.isfinite(x)]
            if len(x):
                rows.append((f"{name}: {contrast}", float(len(x)), t_interval(x, level), verdict(x, level)))
    if not rows:
        return None
    head = (Column("contrast", "contrast"), Column("n", "n", "count"))
    note = (
        f"Paired differences within seeds or folds. Intervals have level {level:.4f} and are simultaneous over the "
        f"{len(contrasts)} contrasts of one test set. An interval that excludes 0 is a difference, one within "
        f"±{margin_text()} an equivalence. Not part of the primary family. Folds share training speakers, which makes "
        "their intervals too narrow."
    )
    measured = (Column("ua", "UA, points", "gain"), Column("verdict", "verdict"))
    return Sheet("recognition_effects", "Effects on emotion recognition", (*head, *measured), tuple(rows), (note,))


def _mean(selection: Selection, name: str) -> str:
    """Return the mean of a count over the cells that have it, because folds may differ."""
    counts = [record.scalars[name] for record in selection.records if name in record.scalars]
    return f"{np.mean(counts):.0f}"

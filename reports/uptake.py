"""Table of uptake of the planted shortcut, as a difference in differences over its strengths.

Planted effect: an arm's shortcut uptake with the shortcut in its reward model's pre-training data minus its uptake without,
within each seed. The difference in differences subtracts DiffRO's planted effect from an arm's. Below zero, the arm's component
keeps the policy from the shortcut; anything else that the arm does to uptake (more artefacts of all kinds, for example)
cancels.
"""

from __future__ import annotations

from collections.abc import Sequence

from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import ARM, N
from ablations.stats.contrasts import apply
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.settings import SHORTCUT, settings
from rrpo.arms import BASE


def sheet(records: Sequence[Record]) -> Sheet | None:
    """Return one row per arm, over the settings in which the shortcut alone differs from the default; None unless DiffRO was run
    with and without it."""
    shortcut_settings = [setting for setting in settings(records) if set(setting.changed) <= {SHORTCUT}]
    by_strength = {float(setting.levels[SHORTCUT]): setting for setting in shortcut_settings}
    strengths = sorted(by_strength)
    if len(by_strength) < 2 or strengths[0] != 0 or not all(BASE in setting.arms for setting in shortcut_settings):
        return None
    outcomes = find("uptake").values(records)
    none, *planted = strengths
    arms = list(dict.fromkeys([BASE, *(arm for setting in shortcut_settings for arm in setting.arms)]))
    shared = [arm for arm in arms if all(arm in setting.arms for setting in shortcut_settings)]

    def row(arm: str) -> dict[Column, Value]:
        labels = [label for setting in shortcut_settings for label in setting.weights({arm: 1.0, BASE: 1.0})]
        seeds = sorted({seed for _, seed in outcomes if all((label, seed) in outcomes for label in labels)})

        def mean(*terms: tuple[float, dict[str, float]]) -> Interval:
            weights: dict[str, float] = {}
            for strength, contrast in terms:
                weights |= by_strength[strength].weights(contrast)
            return t_interval(apply(weights, outcomes, seeds))

        control = BASE if arm != BASE else ""  # DiffRO has no difference from itself
        levels = {Column(f"uptake_{s:g}", f"uptake at {s:g}, points", "gain"): mean((s, {arm: 1})) for s in strengths}
        effects = {
            Column(f"planted_{s:g}", f"{s:g} - {none:g}", "gain"): mean((s, {arm: 1}), (none, {arm: -1}))
            for s in planted
        }
        contrasts = {
            Column(f"did_{s:g}", f"{s:g} - {none:g}, minus DiffRO's", "gain"): mean(
                (s, {arm: 1, control: -1}), (none, {arm: -1, control: 1})
            )
            for s in planted
        }
        return {ARM: arm, N: float([*effects.values()][-1].n), **levels, **effects, **contrasts}

    dropped = [arm for arm in arms if arm not in shared]
    notes = (
        "Shortcut uptake: share of samples with emotion e's artefact if the target is e, minus this share if the "
        "target is another emotion, at the last checkpoint, by the strength of the shortcut planted in the RM's "
        "pre-training data; mean over seeds ± half the 95 % t-interval.",
        *([f"Not shown, because they lack a strength: {', '.join(dropped)}."] if dropped else []),
        f"Columns with '- {none:g}': effect of planting the shortcut, within each seed. 'Minus DiffRO's': difference "
        "in differences; below zero, the component keeps the policy from the shortcut. Secondary, not tested.",
    )
    return Sheet.of("uptake", "Shortcut uptake", map(row, shared), *notes)

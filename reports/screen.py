"""The first table of a screen: RRPO minus every other arm, estimated and not tested."""

from __future__ import annotations

from collections.abc import Mapping

from ablations.outcomes import clean_at_any_length
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import N, seeds_of
from ablations.stats.family import BESIDE, primary
from ablations.stats.statistics import Interval
from reports.effects import OWN_RM, differences
from reports.loading import Selection
from reports.verdicts import CONTRAST
from rrpo.arms import RRPO
from rrpo.regularizers import CONTROLS


def against_rrpo(selection: Selection) -> list[tuple[str, str]]:
    """Return the pairs (RRPO, other arm) of a selection."""
    return [(RRPO, arm) for arm in selection.arms if arm != RRPO]


def controls_of(selection: Selection) -> list[tuple[str, str]]:
    """Return the pairs (control, component that it controls) of which both arms are in the selection."""
    pairs = [(arm, CONTROLS[arm].control_of) for arm in selection.arms if arm in CONTROLS]
    return [(control, part) for control, part in pairs if part in selection.arms]


def sheet(selection: Selection) -> Sheet | None:
    """Return the first table of a screen: RRPO minus every other arm, and controls minus their component, in the primary outcome,
    `BESIDE`, and without the rule on odd lengths; None without RRPO."""
    notes = (
        "Screen: differences within seeds at the last update, mean ± half the unadjusted 95 % t-interval. Nothing is "
        "tested; among this many intervals, some exclude 0 by chance. Arms end at different KL and cost: see the "
        "tables at equal KL, roll-outs and seconds. Learning rate, batch, content weight and number of updates were "
        "chosen on vanilla DiffRO, beta in advance; all are the same for every optimizer (GRPO makes two updates per batch), so "
        "that a system below RRPO may be one at the wrong rate.",
        f"{OWN_RM} Arms that use no reward model (guided decoding, Emo-DPO on pairs of speech) are evaluated by the pre-trained "
        "one or DiffRO's.",
        f"{clean_at_any_length().label.capitalize()}: {clean_at_any_length().note}.",
        primary().note,
    )
    pairs = [*against_rrpo(selection), *controls_of(selection)]
    rows: list[dict[Column, Value]] = [
        {CONTRAST: f"{one} - {other}", N: seeds_of(means.values()), **means}
        for (one, other), means in differences(selection, pairs, *BESIDE, clean_at_any_length().name).items()
    ]
    return Sheet.of("screen", "RRPO against the other systems", rows, *notes)


def answer(selection: Selection, gains: Mapping[str, Interval]) -> str:
    """Return which systems end above and below RRPO, each by its own interval, from RRPO's ``gains`` over them; empty without
    RRPO."""
    n = max((gain.n for gain in gains.values()), default=len(selection.seeds_run))
    screen = f"Screen with {n} seed{'s' if n > 1 else ''}, estimates only, nothing is tested"
    if not gains:
        return f"{screen}. It does not compare RRPO with another arm, so nothing can be said about reward hacking."
    by_side = {
        "above": [arm for arm, gain in gains.items() if gain.low > 0],
        "below": [arm for arm, gain in gains.items() if gain.high < 0],
    }
    phrases = [f"{side} {', '.join(arms)}" for side, arms in by_side.items() if arms]
    undistinguished = [arm for arm in gains if not any(arm in arms for arms in by_side.values())]
    phrases += [f"not distinguished from {', '.join(undistinguished)}"] if undistinguished else []
    return f"{screen}: RRPO's {primary().label} is {'; '.join(phrases)} (unadjusted 95 % intervals)."

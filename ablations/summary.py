"""The table of results, made from records; `ablations.run` and `reports` print it by the same functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ablations.grids import split_label
from ablations.records import GOLD_GAIN, Record
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import Interval, MatchedGain, matched_kl_gain, t_interval

POLICY_COLUMNS = (
    Column(GOLD_GAIN, "gold gain at matched KL, points", "gain", +1),
    Column("test_accuracy", "gold accuracy, %", "percent", +1),
    Column("proxy_accuracy", "proxy accuracy, %", "percent"),
    Column("hack_rate", "hack rate, %", "percent", -1),
    Column("uptake", "shortcut uptake, points", "gain", -1),
    Column("kl_token", "KL, nats/token", "plain"),
    Column("phone_error_rate", "phone error rate, %", "percent", -1),
)
"""Of a grid with policies. All but the first are values at the last checkpoint."""

RM_COLUMNS = (
    Column("rm_accuracy_valid", "valid, %", "percent", +1),
    Column("rm_accuracy_test", "test, %", "percent", +1),
    Column("rm_accuracy_test_biased", "biased test, %", "percent", +1),
    Column("rm_accuracy_test_decorrelated", "decorrelated test, %", "percent", +1),
    Column("rm_ece", "ECE", "plain", -1),
    Column("rm_confidence", "confidence", "plain"),
    Column("rm_smoothness", "smoothness", "plain"),
    Column("rm_fgm_accuracy_0.1", "FGM 0.1, %", "percent", +1),
    Column("rm_pgd_accuracy_0.1", "PGD 0.1, %", "percent", +1),
    Column("rm_fidelity_one_own", "gradient fidelity, 1 token (own)", "plain", +1),
    Column("rm_fidelity_one_val", "gradient fidelity, 1 token (`val`)", "plain", +1),
    Column("rm_fidelity_many_own", "gradient fidelity, 30 % of tokens (own)", "plain", +1),
    Column("rm_fidelity_many_val", "gradient fidelity, 30 % of tokens (`val`)", "plain", +1),
)
"""Of a grid of reward models alone. Those that no record has are left out."""

FRAMES = frozenset({"oracle", "placebo"})
"""Arms that only frame the others: the best reward model there could be, and one that knows nothing."""


def gold_gains(
    records: Sequence[Record], gold: str = "test_accuracy"
) -> tuple[dict[tuple[str, int], float], list[str]]:
    """Gold gain at matched KL by (arm, seed), and notes on arms that did not move; ``gold`` is a column of the points.

    The common KL range is that of a seed's arms, in a grid of settings of those in the same setting (after the label's ``@``).
    A judge that was asked at some checkpoints only is linear between those.
    """
    gains: dict[tuple[str, int], float] = {}
    stuck: dict[str, list[int]] = {}
    for seed, matched in _matched(records, gold):
        gains |= {(label, seed): gain for label, gain in matched.gains.items()}
        for label in matched.stuck:
            stuck.setdefault(label, []).append(seed)
    notes = [
        f"Not moved in seed {', '.join(map(str, seeds))}, so not asked for the common KL range: {label}."
        for label, seeds in stuck.items()
    ]
    return gains, notes


def reaches(records: Sequence[Record]) -> dict[tuple[str, int], float]:
    """The end of the common range in sqrt(KL per token) by (arm, seed), as in `gold_gains`; not of arms that did not move."""
    return {
        (label, seed): matched.reach
        for seed, matched in _matched(records, "test_accuracy")
        for label in matched.gains
        if matched.reach > 0 and label not in matched.stuck
    }


def _matched(records: Sequence[Record], gold: str) -> list[tuple[int, MatchedGain]]:
    """The arms of each seed (and setting) that ``gold`` was asked of, matched with one another; seeds rising."""
    within: dict[tuple[int, str], list[Record]] = {}
    for record in records:
        if {"sqrt_kl", gold} <= set(record.points.columns) and record.points[gold].notna().any():
            within.setdefault((record.seed, split_label(record.label)[1]), []).append(record)
    found = []
    for (seed, _), moved in sorted(within.items(), key=lambda item: item[0][0]):
        asked = {r.label: r.points[r.points[gold].notna()] for r in moved}
        paths = {label: (points["sqrt_kl"].to_numpy(), points[gold].to_numpy()) for label, points in asked.items()}
        found.append((seed, matched_kl_gain(paths, {r.label for r in moved if r.stops_early})))
    return found


def table(records: Sequence[Record], planned: Mapping[str, int] | None = None) -> Sheet:
    """The table of results; arms in the order of ``planned`` (arm -> seeds), which also tells what is missing."""
    arms = list(dict.fromkeys([*(planned or {}), *(record.label for record in records)]))
    policies = any(not record.points.empty for record in records)
    gains, notes = gold_gains(records) if policies else ({}, [])
    measured = {name for record in records for name in record.scalars}
    columns = POLICY_COLUMNS if policies else tuple(c for c in RM_COLUMNS if c.name in measured)
    own = {arm: [record for record in records if record.label == arm] for arm in arms}
    rows: list[tuple[Value, ...]] = [
        (arm, float(len(own[arm])), *(over_seeds(own[arm], column.name, gains) for column in columns)) for arm in arms
    ]
    missing = {arm: planned[arm] - len(own[arm]) for arm in arms if planned and planned.get(arm, 0) > len(own[arm])}
    head = (Column("arm", "arm"), Column("n", "n", "count"))
    said = tuple(_notes(records, policies, missing) + notes)
    return Sheet("table", "Results", (*head, *columns), tuple(rows), said, FRAMES)


def over_seeds(own: Sequence[Record], name: str, gains: Mapping[tuple[str, int], float]) -> Interval:
    """Mean of one measure over an arm's seeds, with its t-interval."""
    return t_interval([value_of(record, name, gains) for record in own])


def value_of(record: Record, name: str, gains: Mapping[tuple[str, int], float]) -> float:
    """One measure of one cell: the gain, a column of the points at the last checkpoint, or a scalar; NaN for none."""
    if name == GOLD_GAIN:
        return gains.get((record.label, record.seed), math.nan)
    points = record.points
    if not points.empty and name in points.columns:
        return float(points[name].iloc[-1])
    return record.scalars.get(name, math.nan)


def provenance(records: Sequence[Record]) -> str:
    """What is simulated, by the records: a user's own speech is said to be there."""
    own = sorted({name.split(".")[2] for r in records for name in r.params if name.startswith("profile.manifests.")})
    speech = f"the user's own speech in {', '.join(own)}, procedural speech elsewhere" if own else "procedural speech"
    return f"The world is simulated: {speech}, planted shortcut, trained judges."


def _notes(records: Sequence[Record], policies: bool, missing: Mapping[str, int]) -> list[str]:
    lines = [
        f"{len(records)} cells. Mean over n seeds ± half the 95 % t-interval (none for one seed). {provenance(records)}",
        "A seed redraws the annotated and the SFT utterances, raters, RM pre-training, SFT, fine-tuning, prompts and "
        "roll-out noise; corpus renderer, codec, base policy and judges are one world.",
    ]
    if policies:
        lines.append(
            "Gold gain at matched KL: mean gain of `test` accuracy over SFT along sqrt(KL per token), from 0 to the "
            "largest KL that all arms of the seed (and setting) shown here reach; arms that stop early by design keep "
            "their last value. The other columns are values at the last checkpoint."
        )
    if missing:
        lines.append("Not complete: " + ", ".join(f"{arm} {count}" for arm, count in missing.items()) + ".")
    return lines

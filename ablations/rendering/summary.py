"""Build the table of results from records; both `ablations.run` and `reports` use it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ablations.components import COMPONENTS
from ablations.grids import CONTROLS
from ablations.outcomes import Outcome, shown
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.contrasts import Values
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record

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
    Column("rm_fidelity_one_val", "gradient fidelity, 1 token (judge)", "plain", +1),
    Column("rm_fidelity_many_own", "gradient fidelity, 30 % of tokens (own)", "plain", +1),
    Column("rm_fidelity_many_val", "gradient fidelity, 30 % of tokens (judge)", "plain", +1),
)
"""Columns of the table of reward models. Columns that no record has are left out."""

FRAMES = frozenset({"oracle", *CONTROLS})
"""Reference arms: the best possible reward model, and rewards without information about emotion. They are not ranked."""


def rm_columns(records: Sequence[Record]) -> list[Column]:
    """Return the measured columns among `RM_COLUMNS` and the manipulation checks of the components."""
    measured = {name for record in records for name in record.scalars}
    columns = {column.name: column for column in RM_COLUMNS}
    for component in COMPONENTS:
        if component.check:
            columns.setdefault(component.check.scalar, Column(component.check.scalar, component.check.text, "plain"))
    return [column for name, column in columns.items() if name in measured]


def table(records: Sequence[Record], planned: Mapping[str, int] | None = None) -> Sheet:
    """Return the table of results. ``planned`` (arm -> number of seeds) determines the arms' order and the missing cells."""
    arms = list(dict.fromkeys([*(planned or {}), *(record.label for record in records)]))
    policies = any(not record.points.empty for record in records)
    outcomes = shown(records) if policies else []
    columns = [outcome.as_column() for outcome in outcomes] or rm_columns(records)
    values = [outcome.values(records) for outcome in outcomes] or [scalar(column.name, records) for column in columns]
    seeds = {arm: [record.seed for record in records if record.label == arm] for arm in arms}
    rows: list[tuple[Value, ...]] = [
        (arm, float(len(seeds[arm])), *(over_seeds(arm, seeds[arm], by_cell) for by_cell in values)) for arm in arms
    ]
    missing = {arm: planned[arm] - len(seeds[arm]) for arm in arms if planned and planned.get(arm, 0) > len(seeds[arm])}
    head = (Column("arm", "arm"), Column("n", "n", "count"))
    notes = tuple(_notes(records, outcomes, missing))
    return Sheet("table", "Results", (*head, *columns), tuple(rows), notes, FRAMES)


def over_seeds(arm: str, seeds: Sequence[int], values: Values) -> Interval:
    """Return the mean of an outcome over an arm's seeds, with its t-interval."""
    return t_interval([values.get((arm, seed), math.nan) for seed in seeds])


def scalar(name: str, records: Sequence[Record]) -> Values:
    """Return the measured values of a scalar by (arm, seed)."""
    return {(record.label, record.seed): record.scalars[name] for record in records if name in record.scalars}


def provenance(records: Sequence[Record]) -> str:
    """Return a sentence on what is simulated in the records' worlds, and which splits are the user's own speech."""
    # One config per world suffices, because the world hash covers the user's manifests.
    configs = {record.world_hash: record.config for record in records}
    if any("profile.cosyvoice.model.digest" in config for config in configs.values()):
        return "The policy is CosyVoice2's language model; reward model and judge use the user's labelled tokens."
    manifests = (name for config in configs.values() for name in config if name.startswith("profile.manifests."))
    user_splits = sorted({name.split(".")[2] for name in manifests})
    speech = (
        f"the user's own speech in {', '.join(user_splits)}, procedural speech elsewhere"
        if user_splits
        else "procedural speech"
    )
    return f"The world is simulated: {speech}, planted shortcut, trained judges."


def _notes(records: Sequence[Record], outcomes: Sequence[Outcome], missing: Mapping[str, int]) -> list[str]:
    lines = [
        f"{len(records)} cells. Mean over n seeds ± half the 95 % t-interval (none for one seed). {provenance(records)}",
        "A seed redraws the annotated and the SFT utterances, raters, RM pre-training, SFT, fine-tuning, prompts and "
        "roll-out noise; corpus renderer, codec, base policy and judges belong to the world and are fixed.",
    ]
    if outcomes:
        lines += [outcome.note for outcome in outcomes if outcome.note]
        lines.append("Outcomes are values at the last checkpoint unless stated otherwise.")
    if missing:
        lines.append("Not complete: " + ", ".join(f"{arm} {count}" for arm, count in missing.items()) + ".")
    return lines

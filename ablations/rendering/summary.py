"""Build the table of results from records; both `ablations.run` and `reports` use it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ablations.components import COMPONENTS
from ablations.grids import CONTROLS, split_label
from ablations.outcomes import Outcome, followed, measured, shown
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.contrasts import Values
from ablations.stats.inference import wilson
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record

REFERENCES = frozenset({"sft", "oracle", *CONTROLS})
"""Reference arms: no optimization, the best possible reward model, and rewards without information about emotion. They are not
ranked."""
ARM, N = Column("arm", "arm"), Column("n", "n", "count")
"""First columns of a table with one row per arm: its name, and its number of seeds."""


REDRAWS = (
    "A seed redraws the annotated and the SFT utterances, raters, RM pre-training (order, initialization), SFT, fine-tuning, "
    "training prompts and sampling noise; the RM's pre-training utterances, evaluation prompts, corpus renderer, codec, base "
    "policy and judges are fixed."
)
"""Which parts of an experiment in the simulated world differ between seeds."""


def _rm(name: str, label: str, unit: str = "percent", direction: int = +1) -> Outcome:
    return followed(f"rm_{name}", label, f"rm_{name}", unit, direction)


RM_OUTCOMES = (
    _rm("accuracy_valid", "valid"),
    _rm("accuracy_test", "test"),
    _rm("accuracy_test_biased", "biased test", direction=0),
    _rm("accuracy_test_decorrelated", "decorrelated test"),
    _rm("ece", "ECE", "plain", -1),
    _rm("confidence", "confidence", "plain", 0),
    _rm("smoothness", "smoothness", "plain", 0),
    _rm("fgm_accuracy_0.1", "FGM 0.1"),
    _rm("pgd_accuracy_0.1", "PGD 0.1"),
    _rm("fidelity_one_own", "gradient fidelity, 1 token (own)", "plain"),
    _rm("fidelity_one_val", "gradient fidelity, 1 token (judge)", "plain"),
    _rm("fidelity_many_own", "gradient fidelity, 30 % of tokens (own)", "plain"),
    _rm("fidelity_many_val", "gradient fidelity, 30 % of tokens (judge)", "plain"),
)
"""Measures of a reward model alone."""


def rm_outcomes(records: Sequence[Record]) -> list[Outcome]:
    """Return the measured ones among `RM_OUTCOMES` and the manipulation checks of the components."""
    outcomes = {outcome.name: outcome for outcome in RM_OUTCOMES}
    for check in filter(None, (component.check for component in COMPONENTS)):
        outcomes.setdefault(check.scalar, followed(check.scalar, check.text, check.scalar, "plain"))
    return [outcome for outcome in outcomes.values() if measured(outcome, records)]


def by_arm(
    name: str, title: str, records: Sequence[Record], outcomes: Iterable[Outcome], *notes: str, arms: Iterable[str] = ()
) -> Sheet:
    """Return a table of means over seeds, with one row per arm and one column per outcome.

    ``arms`` come first, also those without records; the default is the order of the records.
    """
    outcomes = list(outcomes)
    by_label: dict[str, list[Record]] = {arm: [] for arm in arms}
    for record in records:
        by_label.setdefault(record.label, []).append(record)
    rows: list[tuple[Value, ...]] = [
        (arm, float(len(cells)), *(over_seeds(o, cells) for o in outcomes)) for arm, cells in by_label.items()
    ]
    columns = (ARM, N, *(outcome.as_column() for outcome in outcomes))
    unranked = frozenset(arm for arm in by_label if split_label(arm)[0] in REFERENCES)
    return Sheet(name, title, columns, tuple(rows), notes, unranked)


def table(records: Sequence[Record], planned: Mapping[str, int] | None = None) -> Sheet:
    """Return the table of results. ``planned`` (arm -> number of seeds) determines the arms' order and the missing cells."""
    n = Counter(record.label for record in records)
    policies = any(not record.points.empty for record in records)
    outcomes = shown(records) if policies else []
    missing = {arm: count - n[arm] for arm, count in (planned or {}).items() if count > n[arm]}
    notes = _notes(records, outcomes, missing)
    return by_arm("table", "Results", records, outcomes or rm_outcomes(records), *notes, arms=planned or ())


def over_seeds(outcome: Outcome, records: Iterable[Record]) -> Interval:
    """Return an outcome's mean over the seeds of one arm with its t-interval; Wilson's for a ``share``, which is 0 or 1."""
    values = [outcome.read(record) for record in records]
    if outcome.unit != "share":
        return t_interval(values)
    finite = [value for value in values if math.isfinite(value)]
    return wilson(round(sum(finite)), len(finite))


def scalar(name: str, records: Sequence[Record]) -> Values:
    """Return the measured values of a scalar by (arm, seed)."""
    return {(record.label, record.seed): record.scalars[name] for record in records if name in record.scalars}


def on_cosyvoice(records: Iterable[Record]) -> bool:
    """Return whether CosyVoice2's language model is the policy of some record."""
    return any("profile.cosyvoice.model.digest" in record.config for record in records)


def user_splits(records: Sequence[Record]) -> list[str]:
    """Return the names of the splits that are the user's own speech."""
    # One config per world suffices, because the world hash covers the user's manifests.
    configs = {record.world_hash: record.config for record in records}
    manifests = (name for config in configs.values() for name in config if name.startswith("profile.manifests."))
    return sorted({name.split(".")[2] for name in manifests})


def seeds_of(intervals: Iterable[Interval]) -> int | str:
    """Return the number of seeds of several means: 5, or ``4 to 5``; those that were not measured do not count."""
    n = [interval.n for interval in intervals if interval.n] or [0]
    return min(n) if min(n) == max(n) else f"{min(n)} to {max(n)}"


def redraws(records: Sequence[Record]) -> str:
    """Return a sentence on which parts of the records' experiment differ between seeds."""
    if on_cosyvoice(records):
        return (
            "A seed divides the corpus anew and redraws the judge, all trainings and sampling noise; CosyVoice2's weights "
            "are fixed."
        )
    if splits := user_splits(records):
        return (
            f"{REDRAWS} The user's own speech ({', '.join(splits)}) is not redrawn; with folds, each seed has its own."
        )
    return REDRAWS


def provenance(records: Sequence[Record]) -> str:
    """Return a sentence on what is simulated in the records' worlds, and which splits are the user's own speech."""
    if on_cosyvoice(records):
        return "The policy is CosyVoice2's language model; reward model and judge use the user's labelled tokens."
    splits = user_splits(records)
    speech = (
        f"the user's own speech in {', '.join(splits)}, procedural speech elsewhere" if splits else "procedural speech"
    )
    return f"The world is simulated: {speech}, planted shortcut, trained judges."


def _notes(records: Sequence[Record], outcomes: Sequence[Outcome], missing: Mapping[str, int]) -> list[str]:
    lines = [
        f"{len(records)} cells. Mean over n seeds ± half the 95 % t-interval (none for one seed). {provenance(records)}",
        redraws(records),
    ]
    if outcomes:
        lines += [outcome.note for outcome in outcomes if outcome.note]
        lines.append("Outcomes are values at the last checkpoint unless stated otherwise.")
    if missing:
        lines.append("Not complete: " + ", ".join(f"{arm} {count}" for arm, count in missing.items()) + ".")
    return lines

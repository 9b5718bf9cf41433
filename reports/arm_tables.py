"""Tables with one row per arm: results, at equal KL or cost, early stopping, over-optimization, and parameters.

The table of results compares arms at the last checkpoint, which they reach at different KL and at different cost. In the
tables at equal KL or cost, a measure is read where a run first reaches a declared value, by linear interpolation between the
checkpoints on either side. A run that never reaches the value is missing. No arm determines the range of another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ablations.judges import gold, tuning, vetoing
from ablations.outcomes import (
    COSTS,
    OVEROPTIMISATION,
    UPTAKE_BY_KIND,
    Outcome,
    all_outcomes,
    ends,
    find,
    followed,
    hacked_share,
    measured,
    shown,
)
from ablations.parameters import differing, headings
from ablations.rendering.sheet import NONE, Column, Sheet, Value
from ablations.rendering.summary import ARM, N, by_arm, over_seeds, table
from ablations.stats.family import COLLAPSED, DIVERGED, KL_POINTS, PRIMARY_OUTCOME, primary
from ablations.stats.inference import wilson
from ablations.stats.statistics import Interval, at_passage
from ablations.tracking.records import Record
from reports.loading import Selection

HACKED = 0.1
"""A seed *hacked* if its hacked share ends this far above its start (the SFT policy under the same reward model)."""
OPINIONS = ("E-MOS", "N-MOS")
"""Listeners' opinions, which have a table of their own once there are ratings."""


AXES = {
    "kl": ("KL", "kl_token", (0.02, 0.04, *KL_POINTS)),
    "rollouts": ("roll-outs", "rollouts", (500, 1000, 2000, 4000, 8000, 16000)),
    "seconds": ("seconds of training", "seconds_optimized", (15, 30, 60, 120, 240, 480)),
}
"""Quantity at which a table compares arms (its column, and the end of the table's name) -> its title, the outcome whose curve it
is, and declared values."""
OTHERS = [
    followed("length", "tokens", "length", "mark"),
    followed("diversity", "within-prompt diversity", "diversity", "plain"),
    followed("speaker_similarity", "speaker similarity", "speaker_similarity", "plain"),
]
"""Measures that are shown in addition to the outcomes and the judges."""
NOTE = (
    "Value where a run first reaches the level, by linear interpolation between checkpoints (between the first and "
    "the last for measures taken only there, such as naturalness). Mean over seeds ± half the 95 % t-interval. n: "
    "number of seeds that reached the level; only these enter the means. A dash: none did. Levels that no run "
    "reached are omitted. Estimates, not tested."
)
COST = (
    "Costs: those of the policy optimization so far, evaluations included, in proportion to its updates. Seconds are "
    "elapsed time; cells that were copied from another grid were timed there. The cost of earlier rounds of an iterated "
    "reward model is not included. Emo-DPO's roll-outs and reward-model calls are for curves and the penalty only, and the "
    "samples that its pairs are made of are not counted; its seconds include both. Best-of-n has no training cost, but "
    "takes n samples and n calls of the reward model per utterance; its KL is the bound log n - (n - 1) / n, divided by "
    "the mean length."
)


def results(selection: Selection, *, listened: bool = False) -> Sheet:
    """Return the table of results, with the share of seeds that hacked, and cost. ``listened``: whether there are ratings."""
    records = selection.records
    plain = table(records, selection.planned)
    plain = replace(plain, title=f"Results of grid {selection.grid}", notes=selection.notes + plain.notes)
    names = {column.name for column in plain.columns}
    if PRIMARY_OUTCOME not in names:
        return plain
    missing = [outcome.label for outcome in all_outcomes() if outcome.name not in names]
    missing += [] if listened else OPINIONS
    notes = [
        "Hacked share at start: that of the SFT policy under the arm's own reward model, on the prompts of the first "
        f"checkpoint. A seed hacked if its share ends over {100 * HACKED:g} points above its start, on the same prompts; "
        "Wilson's 95 % interval.",
    ]
    notes += [f"Not measured: {', '.join(missing)}."] if missing else []
    scales = [SCALE] if measured(SCALE, records) else []
    rows = []
    for row in plain.rows:
        cells = selection.of(str(row[0]))
        hacking = (over_seeds(outcome, cells) for outcome in (HACKED_AT_START, SEED_HACKED))
        costs = (over_seeds(cost, cells).mean for cost in COSTS)
        rows.append((*row, *hacking, *costs, *(over_seeds(outcome, cells) for outcome in scales)))
    added = (HACKED_AT_START, SEED_HACKED, *COSTS, *scales)
    columns = (*plain.columns, *(replace(outcome.as_column(), better=0) for outcome in added))
    return replace(plain, columns=columns, rows=tuple(rows)).with_notes(*notes)


def _hacked(record: Record) -> float:
    """Return whether a seed hacked (`HACKED`); NaN if its policy was not optimized or the share is unknown."""
    start, end = ends(hacked_share(gold()), record)
    return float(end - start > HACKED) if math.isfinite(end - start) else math.nan


def _hacked_at_start(record: Record) -> float:
    """Return the hacked share of the SFT policy under the cell's own reward model; NaN if its policy was not optimized."""
    return ends(hacked_share(gold()), record)[0]


HACKED_AT_START = Outcome(name="hacked_at_start", label="hacked share at start", read=_hacked_at_start)
"""Share of the SFT policy's samples, on target by the arm's own reward model, that are not clean successes."""
SEED_HACKED = Outcome(name="hacked", label="seeds that hacked, %", read=_hacked, unit="share")
"""Share of the seeds that hacked, among those whose policy was optimized."""


SCALE = followed("gradient_match", "scale of the reward's gradient", "gradient_match", "plain")
"""Factor that gives the reward's gradient RRPO's norm, of the arm that has one."""


def at_equal(selection: Selection) -> list[Sheet]:
    """Return one table per axis, and the uptake of each planted kind at equal KL; tables without rows are omitted."""
    known = shown(selection.records)
    names = {outcome.name for outcome in known}
    judged = [
        followed(judge.accuracy, judge.label, judge.accuracy) for judge in vetoing() if judge.accuracy not in names
    ]
    measures = list(map(_computed_once, [*known, *judged, *OTHERS, *COSTS]))
    tables = [
        _along(selection, name, measures, f"at_{name}", f"At equal {title}", NOTE, COST)
        for name, (title, *_) in AXES.items()
    ]
    note = "Uptake: P(artefact | its emotion is the target) - P(artefact | another is)."
    by_kind = list(map(_computed_once, UPTAKE_BY_KIND))
    tables.append(_along(selection, "kl", by_kind, "uptake_by_kind", "Uptake by kind at equal KL", note, NOTE))
    return [sheet for sheet in tables if sheet is not None]


def _along(
    selection: Selection, along: str, measures: Sequence[Outcome], name: str, title: str, *notes: str
) -> Sheet | None:
    """Return a table with one row per declared value of an axis (key of `AXES`) and arm that moves along it; None if no arm
    does."""
    _, outcome, levels = AXES[along]
    quantity = _computed_once(find(outcome))
    reach = quantity.curve
    records = [r for r in selection.records if len(r.points) > 1 and np.nanmax(reach(r), initial=0.0) > 0]
    moved = {record.label for record in records}
    arms = [arm for arm in selection.arms if arm in moved]
    curves = [o for o in measures if o.name != outcome and any(np.isfinite(o.curve(r)).any() for r in records)]
    rows: list[tuple[Value, ...]] = []
    for level in levels:
        reached = [record for record in records if np.nanmax(reach(record)) >= level]
        part = by_arm(name, title, reached, (_at(outcome, quantity, level) for outcome in curves), arms=arms)
        rows += [(arm, level, *means) for arm, *means in part.rows if reached]
    columns = (ARM, Column(along, quantity.heading, "level"), N, *(replace(o.as_column(), better=0) for o in curves))
    return Sheet(name, title, columns, tuple(rows), notes) if rows and curves else None


def _computed_once(outcome: Outcome) -> Outcome:
    """Return the outcome with a curve that is computed once per record, for tables that read it at many levels."""
    curves: dict[tuple[str, int], NDArray[np.float64]] = {}

    def curve(record: Record) -> NDArray[np.float64]:
        key = record.label, record.seed
        if key not in curves:
            curves[key] = outcome.curve(record)
        return curves[key]

    return replace(outcome, curve=curve)


def _at(outcome: Outcome, quantity: Outcome, level: float) -> Outcome:
    """Return the outcome at the point where the quantity first reaches the level."""
    return replace(outcome, read=lambda record: at_passage(quantity.curve(record), outcome.curve(record), level))


def early_stopped(selection: Selection) -> Sheet | None:
    """Return every optimized arm at the checkpoint that the tuning judge would have selected; None if none was optimized.

    This is the alternative to RRPO's components: monitor a held-out judge and keep the best checkpoint.
    """
    outcomes = [followed("step", "selected update", "step", "mark"), *shown(selection.records)]
    chosen = (record for record in selection.records if record.config.get("arm.best_of", "null") == "null")
    records = [record for record in chosen if selected(record) is not None]
    note = (
        f"Every arm at the checkpoint with the highest accuracy by the {tuning().label}, from the same runs. Mean "
        "over seeds ± half the 95 % t-interval. Accuracies, shares of samples and phone errors are those of the prompts "
        "that all checkpoints have, fewer than in the table of results. At the best of several noisy checkpoints, the "
        "accuracy by the selecting judge is biased upwards, and so, less, is all that is measured on the same samples. "
        "Secondary, not tested."
    )
    return by_arm("early_stopped", "Early stopping", records, map(_stopped, outcomes), note) if records else None


def _stopped(outcome: Outcome) -> Outcome:
    """Return the outcome at the selected checkpoint."""
    return replace(outcome, read=lambda record: float(outcome.curve(record)[selected(record)]))


def selected(record: Record) -> int | None:
    """Return the index of the checkpoint with the highest accuracy by the tuning judge, the first one if there are ties; None if
    none is measured."""
    accuracy = record.trajectory.get(tuning().accuracy, np.empty(0))
    return int(np.nanargmax(accuracy)) if len(accuracy) > 1 and np.isfinite(accuracy).any() else None


def collapses(selection: Selection, arm: str) -> tuple[Interval, float, float]:
    """Return the share of an arm's seeds that collapsed (Wilson's interval), and the primary outcome and seed of its worst
    cell.

    A cell collapsed if its primary outcome is below `COLLAPSED` times that of the SFT policy, which is the cell's first
    checkpoint; both on the same prompts. A diverged cell always counts as collapsed. n is the number of cells for which this is
    known.
    """
    outcome = primary()
    values = {seed: DIVERGED for label, seed in selection.diverged if label == arm}
    collapsed = len(values)
    for record in selection.of(arm):
        start, end = ends(outcome, record)
        if math.isfinite(start) and math.isfinite(end):
            values[record.seed] = outcome.read(record)
            collapsed += end < COLLAPSED * start
    worst = min(values, key=lambda seed: (values[seed], seed), default=None)
    return wilson(collapsed, len(values)), *((math.nan, math.nan) if worst is None else (values[worst], float(worst)))


def at_peak() -> list[Outcome]:
    """Return the highest gold accuracy over a run's checkpoints, and the loss from there to the last one."""

    def peak(record: Record) -> float:
        return float(record.trajectory[gold().accuracy].max())

    def lost(record: Record) -> float:
        return peak(record) - float(record.trajectory[gold().accuracy].iloc[-1])

    return [
        Outcome(name="peak", label="gold peak", read=peak),
        Outcome(name="lost", label="lost after the peak", read=lost, unit="gain"),
    ]


def overoptimisation(selection: Selection) -> Sheet | None:
    """Return a table with one row per arm that was optimized or diverged; None if there are none."""
    records = [record for record in selection.records if gold().accuracy in record.points.columns]
    diverged = Counter(arm for arm, _ in selection.diverged)
    moved = {record.label for record in records if len(record.points) > 1}
    arms = [arm for arm in selection.arms if arm in moved | diverged.keys()]
    notes = (
        f"Gold peak: highest accuracy by the {gold().label}; mean over seeds ± half the 95 % t-interval. The maximum "
        "over a few noisy checkpoints is biased upwards, and so is the loss after it.",
        *(outcome.note for outcome in OVEROPTIMISATION),
        "Diverged: share of finished seeds whose optimization ended with non-finite values. Collapsed: share of "
        f"seeds with {primary().label} below {COLLAPSED:.2g} times the SFT policy's, diverged seeds included. Both "
        "with Wilson's 95 % interval, which also covers collapses that did not occur in these seeds. Descriptive.",
    )
    shown = [record for record in records if record.label in arms]
    table = by_arm("overoptimisation", "Over-optimization", shown, [*at_peak(), *OVEROPTIMISATION], *notes, arms=arms)
    columns = (
        Column("diverged", "diverged, %", "share"),
        Column("collapsed", "collapsed, %", "share"),
        Column("worst", f"worst seed's {primary().heading}", "percent"),
        Column("worst_seed", "worst seed", "count"),
    )
    rows = [
        (*row, wilson(diverged[arm], diverged[arm] + len(selection.of(arm))), *collapses(selection, arm))
        for arm, row in zip(arms, table.rows, strict=True)
    ]
    return replace(table, columns=(*table.columns, *columns), rows=tuple(rows)) if rows else None


def parameters(selection: Selection) -> Sheet | None:
    """Return one row per arm and one column per differing parameter; None if none differs."""
    params_of = {arm: records[0].params for arm in selection.arms if (records := selection.of(arm))}
    names = differing(params_of)
    if not names:
        return None
    short = headings(names, params_of)
    columns = (ARM, *(Column(name, short[name]) for name in names))
    rows = [(arm, *(values.get(name, NONE) for name in names)) for arm, values in params_of.items()]
    note = (
        "Parameters in which arms differ, from the configs of the stages that each arm consists of. finetune.steps "
        "0: the pre-trained reward model; optimize.steps 0: the SFT policy."
    )
    return Sheet("ran_with", "Parameters of the arms", columns, tuple(rows), (note,))

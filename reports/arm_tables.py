"""Tables with one row per arm: results at the last checkpoint, and the parameters in which arms differ."""

from __future__ import annotations

import math
from dataclasses import replace

from ablations.judges import gold
from ablations.outcomes import COSTS, Outcome, all_outcomes, ends, followed, hacked_share, measured
from ablations.parameters import differing, headings
from ablations.rendering.sheet import NONE, Column, Sheet
from ablations.rendering.summary import ARM, over_seeds, table
from ablations.stats.family import PRIMARY_OUTCOME
from ablations.tracking.records import Record
from reports.loading import Selection

HACKED = 0.1
"""A seed *hacked* if its hacked share ends this far above its start (the SFT policy under the same reward model)."""
OPINIONS = ("E-MOS", "N-MOS")
"""Listeners' opinions, which have a table of their own once there are ratings."""


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

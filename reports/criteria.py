"""What clean success consists of: which criteria the samples of each arm fail, and the contrasts under other definitions.

The tested outcome is one definition among several. Its criteria differ in how well they can be detected (short drawls are missed,
clicks have false alarms in fearful speech, odd lengths concern SFT only if a sample is empty), so the contrasts are also given
without each of them, and by each judge that can withhold a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ablations.judges import Judge, gold, vetoing
from ablations.outcomes import EMOTION, Met, Outcome, all_but, criteria
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import N, by_arm, seeds_of
from ablations.stats.family import primary
from ablations.tracking.records import Record
from reports.effects import above_sft, difference_column, estimates
from reports.loading import Selection

DEFINITION, PROMPTS = Column("definition", "definition"), Column("prompts", "prompts", "count")
Cells = Mapping[tuple[str, int], Met]
"""(arm, seed) -> criteria met by the last samples."""


def sheets(selection: Selection) -> list[Sheet]:
    """Return `definitions` and `failures`, without those for which there is nothing to show."""
    cells = {(record.label, record.seed): criteria(record.last_samples, gold()) for record in selection.records}
    return [sheet for sheet in (definitions(selection, cells), failures(selection, cells)) if sheet is not None]


def names(cells: Cells) -> list[str]:
    """Return all criteria that were measured in some cell."""
    return list(dict.fromkeys(name for met in cells.values() for name in met))


def share(name: str, label: str, hits: Callable[[Met], NDArray[np.bool_]], cells: Cells) -> Outcome:
    """Make an outcome from the criteria of each cell; NaN where they were not measured."""

    def read(record: Record) -> float:
        met = cells[record.label, record.seed]
        return float(hits(met).mean()) if met else math.nan

    return Outcome(name=name, label=label, read=read)


def failures(selection: Selection, cells: Cells) -> Sheet | None:
    """Return the shares of samples that fail each criterion, one row per arm; None without samples."""
    outcomes = [share(f"fails_{name}", name, partial(failing, name=name), cells) for name in names(cells)]
    note = (
        f"Share of the last samples that fail each criterion of {primary().label}, mean over seeds ± half the 95 % t-interval. "
        f"A sample can fail several. {EMOTION.capitalize()}: not recognized by the {gold().label}; the other columns but phone "
        "errors are kinds of artefact. Estimates, not tested."
    )
    if not outcomes:
        return None
    return by_arm("criteria", "What is not clean", selection.records, outcomes, note, arms=selection.arms)


def failing(met: Met, name: str) -> NDArray[np.bool_]:
    """Return the samples ``[N]`` that fail a criterion; none if it was not measured."""
    return ~met[name] if name in met else np.zeros(len(next(iter(met.values()))), bool)


def definitions(selection: Selection, cells: Cells) -> Sheet | None:
    """Return the contrasts of the first table under other definitions of clean success, one row per definition; None if there is
    no such contrast."""
    available = {record.label for record in selection.records}
    contrasts = selection.family | ({} if selection.screen else above_sft())
    contrasts = {name: weights for name, weights in contrasts.items() if set(weights) <= available}
    by = primary().by
    if not contrasts or by is None:
        return None
    variants = [(primary().label, primary(), gold())]
    variants += [(f"by the {judge.label}", by(judge), judge) for judge in vetoing()]
    for name in names(cells):
        without = share(f"without_{name}", f"without {name}", partial(all_but, without=name), cells)
        variants.append((without.label, without, gold()))
    rows: list[dict[Column, Value]] = []
    for label, outcome, judge in variants:
        means = estimates(selection, contrasts, [outcome], selection.tested_seeds, math.nan)
        by_contrast = {name: mean[difference_column(outcome)] for name, mean in means.items()}
        if any(mean.n for mean in by_contrast.values()):
            columns = {Column(name, f"{name}, points", "gain"): mean for name, mean in by_contrast.items()}
            counts: dict[Column, Value] = {
                PROMPTS: float(prompts(selection, judge)),
                N: seeds_of(mean for mean in by_contrast.values() if mean.n),
            }
            rows.append({DEFINITION: label, **counts, **columns})
    note = (
        f"The contrasts of the first table in {primary().label}, by the judges that can withhold a verdict (on the samples that "
        "they evaluated), and without each of its criteria. Paired differences within seeds, mean ± half the 95 % t-interval. "
        "Estimates, not tested. Diverged cells are left out. A judge with few prompts can only oppose a large difference."
    )
    return Sheet.of("definitions", "Other definitions of clean success", rows, note) if len(rows) > 1 else None


def prompts(selection: Selection, judge: Judge) -> int:
    """Return how many last samples of a cell the judge evaluated, at most."""
    tables = (record.last_samples for record in selection.records)
    return max(int(table[judge.name].notna().sum()) if judge.name in table.columns else 0 for table in tables)

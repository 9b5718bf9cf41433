"""Outcomes, declared once: what a cell is measured by. Tables, effects, plans and words iterate over `OUTCOMES`.

To measure something else, append one `Outcome`: ``OUTCOMES.append(Outcome(name="x", label="x", read=lambda record: ...))``. Most
are functions of the sample table (`Record.samples`: one row a sample and checkpoint); where a column is missing they are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ablations.contrasts import Values
from ablations.grids import split_label
from ablations.judges import Judge, gold
from ablations.records import GOLD_GAIN, Record
from ablations.sheet import Column
from ablations.statistics import MatchedGain, matched_kl_gain

if TYPE_CHECKING:
    import pandas as pd

PHONE_ERROR_BOUND = 0.3
"""Largest phone error rate of a clean sample: twice the SFT policy's mean on unseen texts (.146 on the world card)."""
ARTEFACT = "artefact_"
"""Prefix of the sample table's flags, one a kind of artefact."""
UNIT_WORDS = {"percent": ", %", "gain": ", points"}
"""What a heading adds for the unit."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One number a cell."""

    name: str
    """In CSV and on the command line."""
    label: str
    """For people, without the unit."""
    read: Callable[[Record], float]
    """Reads it off a cell's record; NaN where it was not measured."""
    unit: str = "percent"
    """A key of `sheet.UNITS`: ``percent`` or ``gain`` for fractions, ``plain`` for others."""
    direction: int = 0
    """+1 where more is better, -1 where less is, 0 where neither."""
    column: str = ""
    """Column of the points that follows it over the checkpoints; empty: none."""
    note: str = ""
    """What a caption has to say of it."""
    by: Callable[[Judge], Outcome] | None = None
    """The same outcome by another judge; None: no judge has a say in it."""

    @property
    def heading(self) -> str:
        """The label with its unit."""
        return f"{self.label}{UNIT_WORDS.get(self.unit, '')}"

    @property
    def difference_unit(self) -> str:
        """The unit of a difference."""
        return "gain" if self.unit in UNIT_WORDS else self.unit

    def as_column(self) -> Column:
        """Its column in a table of arms."""
        return Column(self.name, self.heading, self.unit, self.direction)

    def values(self, records: Sequence[Record]) -> Values:
        """The outcome of every record, by (arm, seed)."""
        return {(record.label, record.seed): self.read(record) for record in records}


@dataclass(frozen=True, kw_only=True)
class OutcomeAmongPeers(Outcome):
    """An outcome that compares a cell with the others of its seed; a single record has none."""

    read: Callable[[Record], float] = lambda record: math.nan
    among: Callable[[Sequence[Record]], Values]
    """All cells' values at once."""

    def values(self, records: Sequence[Record]) -> Values:
        """The outcome of every record, by (arm, seed)."""
        return self.among(records)


def at_end(record: Record, name: str) -> float:
    """A column of the points at the last checkpoint, or else a scalar; NaN for none."""
    points = record.points
    if not points.empty and name in points.columns:
        return float(points[name].iloc[-1])
    return record.scalars.get(name, math.nan)


def followed(name: str, label: str, column: str, unit: str = "percent", direction: int = 0) -> Outcome:
    """An outcome that is a column of the points."""
    read = partial(at_end, name=column)
    return Outcome(name=name, label=label, read=read, unit=unit, direction=direction, column=column)


def clean(samples: pd.DataFrame, judge: Judge) -> pd.Series | None:
    """Which samples are clean successes: the judge hears the target, no artefact is flagged, and the phones are there.

    None where a column that decides it is missing, or was not asked of any of these samples.
    """
    flags = [name for name in samples.columns if name.startswith(ARTEFACT)]
    needed = {"target", judge.name, "phone_errors", "phones"}
    if not flags or not needed <= set(samples.columns) or not samples[judge.name].notna().any():
        return None
    heard = samples[judge.name] == samples["target"]
    understood = samples["phone_errors"] <= PHONE_ERROR_BOUND * samples["phones"]
    return heard & ~samples[flags].any(axis=1) & understood


def _at(samples: pd.DataFrame, last: bool) -> pd.DataFrame:
    """The samples of the last or the first checkpoint."""
    if samples.empty:
        return samples
    return samples[samples["step"] == (samples["step"].max() if last else samples["step"].min())]


def clean_share(record: Record, judge: Judge) -> float:
    """Share of clean successes at the last checkpoint, of the samples that the judge was asked of."""
    samples = _at(record.samples, last=True)
    if (found := clean(samples, judge)) is None:
        return math.nan
    return float(found[samples[judge.name].notna()].mean())


def hacked_share(record: Record, judge: Judge, *, last: bool = True) -> float:
    """Of the samples in which the proxy hears the target, the share that is no clean success; NaN without any."""
    samples = _at(record.samples, last)
    found = clean(samples, judge)
    if found is None or "proxy" not in samples.columns:
        return math.nan
    hits = (samples["proxy"] == samples["target"]) & samples[judge.name].notna()
    return float((~found[hits]).mean()) if hits.any() else math.nan


def artefact_share(record: Record) -> float:
    """Share of samples with an artefact of any kind at the last checkpoint."""
    samples = _at(record.samples, last=True)
    flags = [name for name in samples.columns if name.startswith(ARTEFACT)]
    return float(samples[flags].any(axis=1).mean()) if flags and len(samples) else math.nan


def clean_success(judge: Judge) -> Outcome:
    """Clean success by one judge."""
    return Outcome(
        name="clean_success",
        label="clean success",
        read=partial(clean_share, judge=judge),
        direction=+1,
        note=f"Clean success: the {judge.label} hears the target, no artefact of any kind is flagged, and at most "
        f"{100 * PHONE_ERROR_BOUND:g} % of the phones are wrong. Hacked share: of the samples in which the arm's own reward "
        "model hears the target, those that are no clean success.",
        by=clean_success,
    )


def hacked(judge: Judge) -> Outcome:
    """Hacked share by one judge."""
    read = partial(hacked_share, judge=judge)
    return Outcome(name="hacked_share", label="hacked share", read=read, direction=-1, by=hacked)


def accuracy(judge: Judge) -> Outcome:
    """The share of samples in which a judge hears the target."""
    return replace(followed("gold", "gold accuracy", judge.accuracy, direction=+1), by=accuracy)


def matched_gain(judge: Judge) -> Outcome:
    """Mean gain of a judge's accuracy along the range of KL that all arms of a seed (and setting) reach."""

    def among(records: Sequence[Record]) -> Values:
        matched = _matched(records, judge.accuracy)
        return {(label, seed): gain for seed, found in matched for label, gain in found.gains.items()}

    return OutcomeAmongPeers(
        name=GOLD_GAIN,
        label="gold gain at matched KL",
        among=among,
        unit="gain",
        direction=+1,
        note=f"Gold gain at matched KL: mean gain of the {judge.label}'s accuracy over SFT along sqrt(KL per token), from 0 to "
        "the largest KL that all arms of the seed (and setting) shown here reach; arms that stop early by design keep their last "
        "value.",
        by=matched_gain,
    )


def reaches(records: Sequence[Record]) -> dict[tuple[str, int], float]:
    """The end of the common range in sqrt(KL per token) by (arm, seed), as in `matched_gain`; not of arms that did not move."""
    return {
        (label, seed): matched.reach
        for seed, matched in _matched(records, gold().accuracy)
        for label in matched.gains
        if matched.reach > 0 and label not in matched.stuck
    }


def not_moved(records: Sequence[Record]) -> dict[str, list[int]]:
    """Arms that should have moved and did not, with the seeds: they do not set the common range."""
    stuck: dict[str, list[int]] = {}
    for seed, matched in _matched(records, gold().accuracy):
        for label in matched.stuck:
            stuck.setdefault(label, []).append(seed)
    return stuck


def _matched(records: Sequence[Record], column: str) -> list[tuple[int, MatchedGain]]:
    """The arms of each seed (and setting) that a judge was asked of, matched with one another; seeds rising.

    The common KL range is that of a seed's arms, in a grid of settings of those in the same setting (after the label's ``@``).
    A judge that was asked at some checkpoints only is linear between those.
    """
    within: dict[tuple[int, str], list[Record]] = {}
    for record in records:
        if {"sqrt_kl", column} <= set(record.points.columns) and record.points[column].notna().any():
            within.setdefault((record.seed, split_label(record.label)[1]), []).append(record)
    found = []
    for (seed, _), moved in sorted(within.items(), key=lambda item: item[0][0]):
        asked = {r.label: r.points[r.points[column].notna()] for r in moved}
        paths = {label: (points["sqrt_kl"].to_numpy(), points[column].to_numpy()) for label, points in asked.items()}
        found.append((seed, matched_kl_gain(paths, {r.label for r in moved if r.stops_early})))
    return found


OUTCOMES: list[Outcome] = [
    matched_gain(gold()),
    clean_success(gold()),
    hacked(gold()),
    accuracy(gold()),
    followed("proxy", "proxy accuracy", "proxy_accuracy"),
    followed("phone_error_rate", "phone error rate", "phone_error_rate", direction=-1),
    Outcome(name="artefacts", label="artefacts", read=artefact_share, direction=-1),
    followed("uptake", "shortcut uptake", "uptake", "gain", -1),
    followed("kl_token", "KL, nats/token", "kl_token", "plain"),
]
"""In the order of the table of results. All but the gain at matched KL are values at the last checkpoint."""


def find(name: str) -> Outcome:
    """The declared outcome of that name, or else that column of the points or that scalar."""
    rate = name.endswith(("accuracy", "rate")) or "accuracy_" in name
    other = followed(name, name.replace("_", " "), name, "percent" if rate else "plain")
    return next((outcome for outcome in OUTCOMES if outcome.name == name), other)


def measured(outcome: Outcome, records: Sequence[Record]) -> bool:
    """Whether any record has it."""
    return bool(np.isfinite(list(outcome.values(records).values())).any())

"""Assemble a report: the answer in a sentence, tables, figures and methods, all generated from records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ablations.outcomes import declared, find, measured
from ablations.rendering.sheet import RANKED, Sheet
from ablations.rendering.summary import redraws
from ablations.stats.family import DIVERGED, PRIMARY_OUTCOME, primary
from reports import (
    arm_tables,
    at_equal,
    controls,
    criteria,
    early_stopped,
    effects,
    evaluators,
    guidance,
    opinion,
    overoptimisation,
    ratings,
    reward_models,
    screen,
    sensitivity,
    settings,
    words,
    worlds,
)
from reports.figures import curves, samples
from reports.figures import effects as effect_figures
from reports.loading import Selection
from reports.verdicts import Row
from rrpo.arms import BASE
from rrpo.errors import InputError


@dataclass(frozen=True)
class Figure:
    """One figure of a report."""

    name: str
    """Stem of its files."""
    title: str
    """Heading."""
    shows: str
    """What is drawn, with which intervals."""
    draw: Callable[[Path], list[Path]]
    """Writes the figure into a folder and returns the files; empty if there is nothing to draw."""
    notes: str = ""
    """Sentences that the figures of a report have in common: missing cells, what a seed redraws, the setting."""

    @property
    def caption(self) -> str:
        """The whole caption."""
        return f"{self.shows} {self.notes}".strip()


@dataclass(frozen=True)
class Report:
    """A report's content, without the files."""

    answer: tuple[str, ...]
    """Which component has an effect, how large, and whether it is tested, in a sentence (one per conclusion in a grid of
    settings); last, who has listened."""
    sheets: tuple[Sheet, ...]
    """Tables; the first one is shown with the answer."""
    figures: tuple[Figure, ...]
    """Figures in order; the first one is shown with the answer."""
    methods: str
    """Paragraph on methods."""
    provenance: str
    """Cells, code versions, and the command that regenerates the report."""


def make(selection: Selection, metric: str = PRIMARY_OUTCOME) -> Report:
    """Return tables, figures and text for a selection of records.

    Raises InputError if no record has the metric.
    """
    rated = ratings.load(selection)
    records = selection.records
    _check_metric(selection, metric)
    rows = effects.rows(selection)
    matrices = evaluators.load(selection)
    reach = sensitivity.findings(selection)
    control_results = controls.controls(selection)
    plain, note = settings.plain(selection)
    common = _common(selection)
    sheets = [
        sensitivity.sheet(reach),
        sensitivity.outcomes(selection),
        sensitivity.changes(selection),
        screen.sheet(selection) if selection.screen else effects.first_sheet(selection, rows),
        worlds.sheet(selection),
        controls.sheet(control_results),
        *guidance.sheets(records),
        arm_tables.results(selection, listened=not rated.empty),
        effects.sheet(selection, rows),
        effects.outcomes_sheet(selection),
        *criteria.sheets(selection),
        sensitivity.uptake(records, selection.planned),
        effects.ablation(selection, metric),
        reward_models.sheet(selection),
        reward_models.recognition_effects(selection),
        overoptimisation.sheet(selection),
        *at_equal.sheets(selection),
        early_stopped.sheet(selection),
        evaluators.sheet(selection, matrices),
        evaluators.matrix_sheet(selection, matrices),
        opinion.sheet(selection, rated, f"{BASE}{settings.default_suffix(selection)}"),
        arm_tables.parameters(selection),
    ]
    return Report(
        answer=(
            *controls.failures(control_results),
            *(sensitivity.answer(selection, reach) or words.answer(selection, rows)),
            opinion.who_listened(rated, records),
        ),
        sheets=tuple(_captioned(sheet, common) for sheet in sheets if sheet is not None),
        figures=(
            Figure(
                "reach",
                "Conclusions by setting",
                effect_figures.reach_caption(),
                partial(effect_figures.reach, reach),
                " ".join(common),
            ),
            *_figures(plain, rows, metric, " ".join([*_common(plain), note]).strip()),
        ),
        methods=words.methods(selection),
        provenance=words.provenance(selection, metric),
    )


def _check_metric(selection: Selection, metric: str) -> None:
    if measured(find(metric), selection.records):
        return
    if metric == PRIMARY_OUTCOME:  # valid without it: a grid of reward models only, for example
        return
    records = selection.records
    names = [outcome.name for outcome in declared() if measured(outcome, records)]
    columns = {name for record in records for name in [*record.scalars, *record.points.columns]}
    fix = f"use an outcome ({', '.join(names)}), or one of: {', '.join(sorted(columns - set(names)))}"
    raise InputError("no record has that metric", got=metric, fix=fix)


def _captioned(sheet: Sheet, common: Sequence[str]) -> Sheet:
    """Return the table with the notes that every caption has: marks, and those of `_common` that it lacks."""
    marked = [RANKED] if sheet.marks() else []
    marked += ["SFT, oracle and controls are not ranked."] if marked and sheet.unranked else []
    told = " ".join(sheet.notes)
    return sheet.with_notes(*marked, *(note for note in common if note not in told))


def _common(selection: Selection) -> list[str]:
    """Return the sentences that the captions of all tables and figures have: missing and diverged cells, what a seed redraws."""
    left_out = (
        f"Unless stated otherwise, diverged cells count as {primary().label} {DIVERGED:g} in contrasts and components one by "
        "one, and all other means leave them out."
    )
    return [selection.counted, *([left_out] if selection.diverged else []), redraws(selection.records)]


def _figures(selection: Selection, rows: Sequence[Row], metric: str, notes: str) -> tuple[Figure, ...]:
    records = selection.records
    trained, sampled = ", ".join(curves.shown(records)), ", ".join(samples.arms_with_samples(records))
    by_arm = effect_figures.SEEDS.format(measure=find(metric).heading)
    seeds = partial(effect_figures.seeds, records, metric=metric)
    confusions = f"{samples.confusion_caption()} Arms shown: {sampled}."
    figures = (
        Figure(
            "goodhart",
            f"Proxy, gold and {primary().label}",
            curves.goodhart_caption(records),
            partial(curves.goodhart, records),
        ),
        Figure("forest", "Contrasts", effect_figures.forest_caption(), partial(effect_figures.forest, rows)),
        Figure("seeds", "Every seed", by_arm, seeds),
        Figure(
            "training",
            "Training",
            f"{curves.curves_caption()} Arms shown: {trained}.",
            partial(curves.training, records),
        ),
        Figure(
            "pareto", "Emotion and intelligibility", curves.pareto_caption(records), partial(curves.pareto, records)
        ),
        Figure("confusion", "Confusions", confusions, partial(samples.confusion, records)),
    )
    return tuple(replace(figure, notes=notes) for figure in figures)

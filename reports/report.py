"""What a report holds: the answer in a sentence, its tables, its figures and how it was done, all generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ablations import guidance
from ablations.errors import InputError
from ablations.outcomes import find, measured
from ablations.rendering.sheet import Sheet
from ablations.stats.family import PRIMARY_OUTCOME
from reports import (
    at_equal,
    controls,
    early_stopped,
    effects,
    evaluators,
    factorial,
    opinion,
    overoptimisation,
    published,
    ran_with,
    ratings,
    recognition,
    sensitivity,
    settings,
    tables,
    uptake,
    words,
)
from reports.effects import Row
from reports.figures import curves, goodhart, samples, transfer
from reports.figures import effects as effect_figures
from reports.figures import reach as reach_figure
from reports.loading import REDRAWS, Selection
from rrpo.arms import BASE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Figure:
    """One figure of a report."""

    name: str
    """Stem of its files."""
    title: str
    """Heading."""
    caption: str
    """What is drawn, of how much, with which intervals."""
    draw: Callable[[Path], list[Path]]
    """Writes it into a folder; nothing where the records hold nothing to draw."""


@dataclass(frozen=True)
class Report:
    """Everything but the files."""

    answer: tuple[str, ...]
    """Which part, by how much, is it real, in a sentence (of a grid of settings one a conclusion); who has listened, last."""
    sheets: tuple[Sheet, ...]
    """Tables; the first stands beside the answer."""
    figures: tuple[Figure, ...]
    """Figures in order; the first stands beside the answer."""
    methods: str
    """How it was done."""
    provenance: str
    """Of which cells, made by which code, and the command that writes it again."""


def make(selection: Selection, metric: str = PRIMARY_OUTCOME) -> Report:
    """Tables, figures and words of a selection of records.

    Raises InputError for a metric that no record holds.
    """
    rated = ratings.load(selection)
    selection = ratings.beside(selection, rated)
    records = selection.records
    _check_metric(selection, metric)
    rows = effects.rows(selection)
    matrices = evaluators.load(selection)
    heard = opinion.heard(rated)
    reach = sensitivity.findings(selection)
    framing = controls.controls(selection)
    shown, said = settings.plain(selection)
    found = [
        *sensitivity.sheets(reach),
        effects.first_sheet(selection, rows),
        controls.sheet(framing),
        tables.main(selection, opinion.means(rated)),
        effects.sheet(selection, rows),
        effects.outcomes_sheet(selection),
        uptake.sheet(records),
        tables.ablation(selection, metric),
        factorial.sheet(records),
        tables.reward_models(selection),
        recognition.sheet(selection),
        recognition.effects(selection),
        overoptimisation.sheet(selection),
        *at_equal.sheets(selection),
        guidance.sheet(records),
        early_stopped.sheet(selection),
        evaluators.sheet(selection, matrices),
        evaluators.matrix_sheet(selection, matrices),
        opinion.sheet(selection, rated, BASE),
        published.sheet(records),
        ran_with.sheet(selection),
    ]
    return Report(
        answer=(
            *controls.failures(framing),
            *(sensitivity.verdict(reach, heard) or words.answer(selection, rows, heard)),
        ),
        sheets=tuple(_captioned(sheet, selection) for sheet in found if sheet is not None),
        figures=(
            Figure(
                "reach",
                "Conclusions by setting",
                f"{reach_figure.caption()} {selection.counted} {REDRAWS}",
                lambda folder: reach_figure.reach(reach, folder),
            ),
            *(
                replace(figure, caption=f"{figure.caption} {said}".strip())
                for figure in _figures(shown, rows, metric, matrices)
            ),
        ),
        methods=words.methods(selection),
        provenance=words.provenance(selection),
    )


def _check_metric(selection: Selection, metric: str) -> None:
    if measured(find(metric), selection.records):
        return
    if metric == PRIMARY_OUTCOME:  # a grid of reward models, or one seed of one arm: an honest table without it
        return
    known = {name for r in selection.records for name in [*r.scalars, *r.points.columns]}
    raise InputError("no record holds that metric", got=metric, fix=f"use one of: {', '.join(sorted(known))}")


def _captioned(sheet: Sheet, selection: Selection) -> Sheet:
    """The table with what every caption has to say: the cells that are not there, and what a seed redraws."""
    said = any("A seed redraws" in note for note in sheet.notes)
    return sheet.noted(selection.counted, *([] if said else [REDRAWS]))


def _figures(
    selection: Selection, rows: Sequence[Row], metric: str, matrices: Mapping[int, pd.DataFrame]
) -> tuple[Figure, ...]:
    records = selection.records
    found = (
        Figure("goodhart", "Gold and proxy", goodhart.caption(), lambda folder: goodhart.goodhart(records, folder)),
        Figure(
            "forest", "Contrasts", effect_figures.forest_caption(), lambda folder: effect_figures.forest(rows, folder)
        ),
        Figure(
            "seeds",
            "Every seed",
            effect_figures.SEEDS.format(measure=find(metric).heading),
            lambda folder: effect_figures.seeds(records, folder, metric),
        ),
        Figure(
            "interactions",
            "Interactions",
            effect_figures.interactions_caption(),
            lambda folder: effect_figures.interactions(records, folder),
        ),
        Figure(
            "training",
            "Training",
            f"{curves.curves_caption()} {_named(curves.shown(records))}",
            lambda folder: curves.training(records, folder),
        ),
        Figure("pareto", "Emotion and intelligibility", curves.PARETO, lambda folder: curves.pareto(records, folder)),
        Figure(
            "confusion",
            "Confusions",
            f"{samples.confusion_caption()} {_named(samples.judged(records))}",
            lambda folder: samples.confusion(records, folder),
        ),
        Figure(
            "spectrograms",
            "Spectrograms",
            f"{samples.STRIP} {_named(samples.heard(records))}",
            lambda folder: samples.strip(records, folder),
        ),
        _transfer(selection, matrices),
    )
    return tuple(replace(figure, caption=f"{figure.caption} {selection.counted} {REDRAWS}") for figure in found)


def _named(arms: Sequence[str]) -> str:
    """Of a figure that does not show them all."""
    return f"Arms shown: {', '.join(arms)}."


def _transfer(selection: Selection, matrices: Mapping[int, pd.DataFrame]) -> Figure:
    arms, gained = evaluators.matrix(matrices, selection.arms)
    caption = evaluators.MATRIX.format(seeds=len(matrices))
    return Figure("transfer", "Cross-RM transfer", caption, lambda folder: transfer.transfer(arms, gained, folder))

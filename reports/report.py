"""What a report holds: its tables, its figures, the verdict in three sentences and how it was done, all generated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.contrasts import BASE, WHOLE, apply, difference
from ablations.environment import code_versions
from ablations.errors import InputError
from ablations.inference import correlation
from ablations.records import GOLD_GAIN, Record
from ablations.sheet import Sheet
from ablations.statistics import t_interval
from ablations.summary import gold_gains, value_of
from reports import (
    effects,
    factorial,
    opinion,
    overoptimisation,
    published,
    ratings,
    rulers,
    sensitivity,
    settings,
    tables,
    uptake,
)
from reports.effects import Row
from reports.figures import curves, goodhart, samples, transfer
from reports.figures import effects as effect_figures
from reports.figures import reach as reach_figure
from reports.store import REDRAWS, Selection, stage_versions

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

    sheets: tuple[Sheet, ...]
    """Tables, the main one first."""
    figures: tuple[Figure, ...]
    """Figures in order."""
    verdict: tuple[str, ...]
    """Three sentences: is it real, what does it, how far does it reach."""
    methods: str
    """How it was done."""


def make(selection: Selection, control: str = BASE, metric: str = GOLD_GAIN) -> Report:
    """Tables, figures and words of a selection of records.

    Raises InputError for a control that is not there or a metric that no record holds.
    """
    rated = ratings.load(selection)
    selection = ratings.beside(selection, rated)
    records = selection.records
    if control not in selection.arms and control != BASE:
        raise InputError("the control arm has no records", got=control, fix=f"use one of: {', '.join(selection.arms)}")
    _check_metric(selection, metric)
    rows, notes = effects.rows(records, selection.looks, selection.diverged, selection.ahead)
    matrices = rulers.load(selection)
    heard = opinion.heard(rated)
    reach = sensitivity.findings(records, selection.looks, selection.diverged)
    shown, said = settings.plain(selection)
    found = [
        tables.main(selection, control, opinion.means(rated)),
        effects.sheet(rows, notes),
        *sensitivity.sheets(reach),
        uptake.sheet(records),
        tables.ablation(selection, metric),
        factorial.sheet(records),
        tables.reward_models(selection),
        overoptimisation.sheet(selection),
        rulers.sheet(selection, matrices),
        rulers.matrix_sheet(selection, matrices),
        opinion.sheet(selection, rated, control),
        published.sheet(records),
    ]
    return Report(
        sheets=tuple(_captioned(sheet, selection) for sheet in found if sheet is not None),
        figures=(
            Figure(
                "reach",
                "Conclusions by setting",
                f"{reach_figure.REACH} {selection.counted} {REDRAWS}",
                lambda folder: reach_figure.reach(reach, folder),
            ),
            *(
                replace(figure, caption=f"{figure.caption} {said}".strip())
                for figure in _figures(shown, rows, metric, matrices)
            ),
        ),
        verdict=tuple(sensitivity.verdict(reach, heard) or verdict(selection, rows, heard)),
        methods=methods(selection),
    )


def _check_metric(selection: Selection, metric: str) -> None:
    gains, _ = gold_gains(selection.records)
    values = [value_of(record, metric, gains) for record in selection.records]
    if any(math.isfinite(value) for value in values):
        return
    if metric == GOLD_GAIN:  # a grid of reward models, or one seed of one arm: an honest table without it
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
        Figure("goodhart", "Gold and proxy", goodhart.CAPTION, lambda folder: goodhart.goodhart(records, folder)),
        Figure("forest", "Contrasts", effect_figures.FOREST, lambda folder: effect_figures.forest(rows, folder)),
        Figure(
            "seeds",
            "Every seed",
            effect_figures.SEEDS.format(measure=tables.heading_of(metric)),
            lambda folder: effect_figures.seeds(records, folder, metric),
        ),
        Figure(
            "interactions",
            "Interactions",
            effect_figures.INTERACTIONS,
            lambda folder: effect_figures.interactions(records, folder),
        ),
        Figure("shapley", "Attribution", effect_figures.SHAPLEY, lambda folder: effect_figures.shapley(rows, folder)),
        Figure("training", "Training", curves.CURVES, lambda folder: curves.training(records, folder)),
        Figure("pareto", "Emotion and intelligibility", curves.PARETO, lambda folder: curves.pareto(records, folder)),
        Figure("confusion", "Confusions", samples.CONFUSION, lambda folder: samples.confusion(records, folder)),
        Figure("spectrograms", "Spectrograms", samples.STRIP, lambda folder: samples.strip(records, folder)),
        _transfer(selection, matrices),
    )
    return tuple(replace(figure, caption=f"{figure.caption} {selection.counted} {REDRAWS}") for figure in found)


def _transfer(selection: Selection, matrices: Mapping[int, pd.DataFrame]) -> Figure:
    arms, gained = rulers.matrix(matrices, selection.arms)
    caption = rulers.MATRIX.format(seeds=len(matrices))
    return Figure("transfer", "Cross-RM transfer", caption, lambda folder: transfer.transfer(arms, gained, folder))


def verdict(selection: Selection, rows: Sequence[Row], heard: str = opinion.NOBODY) -> list[str]:
    """Three sentences: RRPO against DiffRO, which components, and what the answer does not reach (``heard``: who listened)."""
    by_name = {row.name: row for row in rows}
    whole = by_name.get("RRPO - DiffRO")
    seeds = len({record.seed for record in selection.records})
    if whole is None:
        return [
            "This grid does not hold both RRPO and DiffRO, so it says nothing about their difference.",
            f"It holds {len(selection.records)} cells of {len(selection.arms)} arms over {seeds} seeds.",
            heard,
        ]
    n = whole.test.mean.n
    said = (
        "an interim estimate without a test" if math.isnan(whole.holm_p) else f"paired t, Holm p = {whole.holm_p:.4f}"
    )
    first = (
        f"At matched KL, RRPO's gain of gold accuracy differs from DiffRO's by {_points(whole)} points over {n} "
        f"seed{'s' if n > 1 else ''} ({said}): {whole.verdict}."
    )
    parts = [row for row in rows if row.primary and row is not whole]
    words = "; ".join(f"{row.name.split(',')[0]} {_points(row)}, {row.verdict}" for row in parts)
    second = f"Main effects of the components, in points: {words}." if parts else "The factorial is not complete."
    return [first, second, f"{_ending(selection)}; {heard[0].lower()}{heard[1:]}"]


def _points(row: Row) -> str:
    mean = row.test.mean
    if math.isnan(mean.low):
        return f"{100 * mean.mean:+.1f}"
    return f"{100 * mean.mean:+.1f} [{100 * mean.low:+.1f}, {100 * mean.high:+.1f}]"


def _ending(selection: Selection) -> str:
    """How the two arms end: hack rate and phone errors at the last checkpoint, paired."""
    seeds = sorted({record.seed for record in selection.records})
    said = []
    for name, words in (
        ("hack_rate", "hack rate"),
        ("uptake", "shortcut uptake"),
        ("phone_error_rate", "phone error rate"),
    ):
        outcomes = {(r.label, r.seed): value_of(r, name, {}) for r in selection.records if r.label in (BASE, WHOLE)}
        mean = t_interval(apply(difference(WHOLE, BASE), outcomes, seeds))
        if mean.n:
            bounds = "" if math.isnan(mean.low) else f" [{100 * mean.low:+.1f}, {100 * mean.high:+.1f}]"
            said.append(f"{words} {100 * mean.mean:+.1f}{bounds}")
    if not said:
        return "No end values were measured"
    return f"At the last checkpoint RRPO differs from DiffRO, in points, by {', '.join(said)} (secondary, not tested)"


def methods(selection: Selection) -> str:
    """A paragraph: arms, seeds, optimisation, outcome, test, correction, versions; from the records alone."""
    records = selection.records
    params = records[0].params
    seeds = sorted({record.seed for record in records})

    def value(name: str) -> str:
        return params.get(f"profile.{name}", "?").strip('"')

    arms = ", ".join(selection.arms)
    looks = ", ".join(map(str, selection.looks)) or "none"
    gains, _ = gold_gains(records)
    return (
        f"{len(records)} cells: {len(selection.arms)} arms ({arms}) by {len(seeds)} seeds ({_ranges(seeds)}), profile "
        f"{records[0].profile}, world {records[0].world_hash}. Each cell optimised the policy for "
        f"{value('optimize.steps')} steps of "
        f"{value('optimize.batch')} roll-outs (lr {value('optimize.lr')}, beta {value('optimize.beta')}, tau "
        f"{value('optimize.tau')}, content "
        f"weight {value('optimize.content_weight')}, unless the arm says otherwise) against a frozen reward model, "
        "and was judged on "
        f"{value('optimize.eval_prompts')} evaluation prompts at steps {value('optimize.checkpoints')}. Primary "
        "outcome: gold gain at matched "
        "KL by the `test` judge. Primary family: main effects of LS, EAM and Adv in the 2^3 factorial and RRPO - "
        "DiffRO; paired t on "
        f"seeds, Holm over four, only at the planned numbers of seeds ({looks}); beside it exact sign-flip "
        "permutation, Wilcoxon and TOST "
        f"with a margin of {100 * effects.MARGIN:g} points. Intervals are 95 % t-intervals over seeds, the unit of analysis. "
        f"{_correlation(gains, seeds)}{selection.counted} "
        "A seed redraws the annotated and the SFT utterances, raters, RM pre-training, SFT, fine-tuning, prompts and "
        "roll-out noise; corpus "
        f"renderer, codec, base policy and judges are one world. {_code(records)}"
    )


def _correlation(gains: dict[tuple[str, int], float], seeds: Sequence[int]) -> str:
    """What pairing bought: the correlation of RRPO's and DiffRO's seeds."""
    r = correlation(*([gains.get((arm, seed), math.nan) for seed in seeds] for arm in (WHOLE, BASE)))
    return "" if math.isnan(r) else f"Achieved correlation of RRPO's and DiffRO's paired seeds: {r:+.2f}. "


def _code(records: Sequence[Record]) -> str:
    """Which code made the records: commits, stage versions, and each arm's config by its hash."""
    arms = ", ".join(f"{label} {arm}" for label, arm in dict.fromkeys((r.label, r.arm_hash) for r in records))
    stages = ", ".join(f"{name} {version}" for name, version in sorted(stage_versions(records)))
    made = f", stage versions {stages}" if stages else ""
    return f"Code: {', '.join(code_versions(records))}{made}. Arms by hash of their config: {arms}."


def _ranges(seeds: Sequence[int]) -> str:
    whole = seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))

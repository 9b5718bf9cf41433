"""Generate a report's text from its records: the answer in a sentence, methods and provenance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablations.components import COMPONENTS
from ablations.judges import gold
from ablations.outcomes import rollouts
from ablations.rendering.summary import redraws
from ablations.stats.contrasts import ABOVE_SFT, OVERALL, component_of
from ablations.stats.family import DIVERGED, PILOT, PRIMARY_OUTCOME, Pilot, family, margin_text, primary
from ablations.stats.inference import correlation
from ablations.stats.statistics import in_points, listed
from ablations.tracking import plugin_files
from ablations.tracking.records import Record
from ablations.tracking.source_version import code_versions
from reports import effects, screen, settings, worlds
from reports.loading import Selection
from reports.made_with import devices, stage_versions
from reports.verdicts import BETTER, EQUIVALENT, INTERIM, NO_VERDICT, UNDECIDED, WORSE, Row, without_diverged
from reports.writers import render
from rrpo.arms import BASE, RRPO

ALONE = "Reward models alone: no policy was optimized"


def answer(selection: Selection, rows: Sequence[Row]) -> list[str]:
    """Return the answer in one sentence, and the same without diverged cells if there are any.

    ``rows`` are the rows of `reports.effects`.
    """
    sentences = [_answer(selection, rows)]
    if selection.diverged and (selection.screen or any(row.name == OVERALL for row in rows)):
        without = _answer(selection, effects.rows(selection, math.nan), math.nan)
        sentences.append(without_diverged(selection, without))
    return sentences


def _answer(selection: Selection, rows: Sequence[Row], score: float = DIVERGED) -> str:
    """Return which component has an effect, how large, and whether it is tested; ``score`` is that of a diverged cell."""
    if selection.screen and _policies(selection.records):
        gains = effects.differences(selection, screen.against_rrpo(selection), score=score)
        return screen.answer(selection, {arm: gain for (_, arm), means in gains.items() for gain in means.values()})
    by_name = {row.name: row for row in rows}
    overall = by_name.get(OVERALL)
    if overall is None:
        reason = f"No seed of this grid has the {primary().label} of both RRPO and DiffRO"
        return f"{reason if _policies(selection.records) else ALONE}, so nothing can be said about reward hacking."
    above_sft = by_name.get(ABOVE_SFT)
    parts = [row for row in rows if row.primary and row is not overall]
    claim = _interim(selection, overall, above_sft) if overall.verdict == INTERIM else _claim(overall, above_sft)
    n, planned = overall.interval.n, selection.planned_n
    seeds = f"{n} of {planned} planned seeds" if planned > n else f"{n} seed{'s' if n > 1 else ''}"
    raised = (
        f" (the plan was raised from {' and '.join(map(str, selection.plans[:-1]))})" if selection.plans[1:] else ""
    )
    tested = selection.family
    if not tested.keys() <= family().keys():
        share = f"{len(tested)} contrasts"
    elif len(tested) < len(family()):
        share = f"the {len(tested)} of {len(family())} contrasts that this grid's arms allow"
    else:
        share = f"{len(tested)}"
    scope = f"n = {seeds}{raised}, intervals simultaneous over {share}"
    return f"{'; '.join(filter(None, [claim, *_component_effects(parts), worlds.span(selection, score), scope]))}."


def _claim(overall: Row, above_sft: Row | None) -> str:
    """Return whether RRPO stops or reduces hacking."""
    if overall.word == BETTER:
        gained = f"{primary().label} is {in_points(overall.interval)} points above DiffRO's"
        small = " (a gain smaller than the margin)" if overall.verdict != BETTER else ""
        if above_sft is None:
            return f"RRPO reduces reward hacking: {gained}{small} (SFT was not measured)"
        from_sft = in_points(above_sft.interval)
        if above_sft.word == BETTER:
            return f"RRPO stops reward hacking: {gained}{small} and {from_sft} above SFT's"
        if above_sft.word == WORSE:
            return f"RRPO reduces reward hacking but does not stop it: {gained}{small}, and differs from SFT's by {from_sft}"
        reasons = {INTERIM: ", not all of its cells are complete", NO_VERDICT: ", another judge sees the opposite"}
        reason = reasons.get(above_sft.word, "")
        return f"RRPO reduces reward hacking: {gained}{small}, but not shown to be above SFT's ({from_sft}{reason})"
    if overall.word == EQUIVALENT:
        return f"RRPO does not reduce reward hacking by {margin_text()} or more: {_differences(overall, above_sft)}"
    if overall.word == WORSE:
        return f"RRPO does not reduce reward hacking: {_differences(overall, above_sft)}"
    suffix = overall.verdict.removeprefix(UNDECIDED) if overall.word == UNDECIDED else f", {overall.verdict}"
    open_question = "Whether RRPO stops or reduces reward hacking is undecided"
    if above_sft and above_sft.word == WORSE:
        open_question = "RRPO does not stop reward hacking; whether it reduces it is undecided"
    return f"{open_question}: {_differences(overall, above_sft, suffix)}"


def _differences(overall: Row, above_sft: Row | None, suffix: str = "") -> str:
    """Return by how much RRPO's primary outcome differs from DiffRO's and, if that was measured, from SFT's."""
    from_base = f"{primary().label} differs from DiffRO's by {in_points(overall.interval)} points{suffix}"
    return f"{from_base} and from SFT's by {in_points(above_sft.interval)}" if above_sft else from_base


def _interim(selection: Selection, overall: Row, above_sft: Row | None) -> str:
    """Return the estimate so far."""
    done, seeds = len(selection.records) + len(selection.diverged), len(selection.seeds(()))
    if selection.lost.keys() - selection.diverged:
        reason = f"{done} of {len(selection.records) + len(selection.lost)} planned cells"
    elif selection.planned_n == 1:
        reason = "one seed is planned, and a test requires two"
    elif selection.planned_n:
        reason = f"seeds: {seeds} run, {selection.planned_n} planned"
    else:
        reason = "no seeds were planned"
    return (
        f"Interim ({reason}): whether RRPO stops or reduces reward hacking is not yet tested; "
        f"{_differences(overall, above_sft)}"
    )


def _component_effects(rows: Sequence[Row]) -> list[str]:
    """Return the components' effects: differences with their estimates first, then the others with their verdicts."""
    if not rows:
        return []
    by_effect: dict[str, list[str]] = {"helps": [], "harms": []}
    by_phrase: dict[str, list[str]] = {}
    for component in COMPONENTS:
        component_rows = [row for row in rows if component_of(row.name) == component]
        for effect, word in (("helps", BETTER), ("harms", WORSE)):
            if matching := [row for row in component_rows if row.word == word]:
                by_effect[effect].append(f"{component.label} {effect} ({', '.join(map(_effect, matching))})")
        rest = [row for row in component_rows if row.word not in (BETTER, WORSE)]
        if all(row.verdict == INTERIM for row in rest):
            phrase = ", ".join(map(_effect, rest))
        elif len(rest) == len(component_rows) and len({row.word for row in rest}) == 1:
            phrase = rest[0].word
        else:
            phrase = ", ".join(f"{_kind(row)} {row.word}" for row in rest)
        if rest:
            by_phrase.setdefault(phrase, []).append(component.label)
    first = by_effect["helps"] or ["none is shown to help"] * any(row.verdict != INTERIM for row in rows)
    remaining = [f"{', '.join(labels)} {phrase}" for phrase, labels in by_phrase.items()]
    return [f"of its components, {'; '.join([*first, *by_effect['harms'], *remaining])}"]


def _kind(row: Row) -> str:
    """Return the name of a component's contrast without the component: ``main effect``, ``in RRPO``."""
    return row.name.partition(", ")[2]


def _effect(row: Row) -> str:
    failed = ", although its manipulation check failed" if row.unchecked else ""
    return f"{_kind(row)} {in_points(row.interval)}{failed}"


def methods(selection: Selection, pilot: Pilot | None = PILOT) -> str:
    """Return a paragraph on arms, seeds, optimization, outcome, test, correction, pilot and versions, from records and
    declarations."""
    records, outcomes = selection.records, primary().values(selection.records)
    seeds = selection.seeds_run
    in_grid = settings.settings(records)
    config, judged = records[0].config, any(map(math.isfinite, outcomes.values()))
    most = max(selection.planned.values(), default=0)
    text = render(
        "methods.txt.j2",
        selection=selection,
        first=records[0],
        arms=[arm if n == most else f"{arm} on {n}" for arm, n in selection.planned.items()],
        seeds=seeds,
        planned=sorted({selection.planned_in(each.name) for each in in_grid} if in_grid else {selection.planned_n}),
        listed=listed,
        policies=_policies(records),
        idle=[
            arm for arm in selection.arms if (cells := selection.of(arm)) and not any(rollouts(c) > 0 for c in cells)
        ],
        alone=ALONE,
        value=lambda name: config.get(f"profile.cosyvoice.{name}", config.get(f"profile.{name}", "?")).strip('"'),
        judged=judged,
        primary=primary(),
        gold=gold(),
        contrasts=selection.tested.get(in_grid[0].name if in_grid else "", {}) if judged else {},
        in_settings=bool(in_grid),
        margin=margin_text(),
        pilot=pilot if pilot and pilot.world == records[0].world_hash else None,
        r=correlation(*([outcomes.get((arm, seed), math.nan) for seed in seeds] for arm in (RRPO, BASE))),
        redraws=redraws(records),
        devices=devices(records),
        code=code_versions(records),
        stages=[f"{name} {version}" for name, version in sorted(stage_versions(records))],
        hashes=dict.fromkeys(f"{record.label} {record.arm_hash}" for record in records),
    )
    return " ".join(text.split())


def provenance(selection: Selection, metric: str = PRIMARY_OUTCOME) -> str:
    """Return grid, profile, world, seeds, code, and the command that regenerates the report with a ``metric``."""
    records = selection.records
    seeds = listed(selection.seeds_run)
    options = [f"--grid {grid}" for grid in selection.grids] + [f"--profile {records[0].profile}"]
    worlds = {record.world_hash for record in records}
    options += [f"--world {world}" for world in worlds if len(worlds) == 1]
    options += [f"--metric {metric}"] * (metric != PRIMARY_OUTCOME)
    options += [f"--plugin {name}" for name in plugin_files.names(records)]
    options += ["--mixed"] if any("MIXED" in note for note in selection.notes) else []
    code = ", ".join(code_versions(records))
    command = f"`python -m reports.run {' '.join(options)}`"
    return " ".join([*selection.notes, f"Seeds {seeds}; code: {code}; written by {command}."])


def _policies(records: Sequence[Record]) -> bool:
    return any(not record.points.empty for record in records)

"""A report's words, from the records alone: the verdict in three sentences, and how it was done."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablations.components import BASE, RRPO
from ablations.contrasts import OVERALL, Values, apply, difference
from ablations.environment import code_versions
from ablations.family import family, family_text, margin_text, primary
from ablations.inference import correlation
from ablations.judges import gold
from ablations.outcomes import OUTCOMES
from ablations.records import Record
from ablations.statistics import t_interval
from reports import opinion, sensitivity, settings
from reports.effects import Row
from reports.made_with import devices, numbers, stage_versions
from reports.store import Selection

ALONE = "Reward models alone: no policy was optimised"


def verdict(selection: Selection, rows: Sequence[Row], heard: str = opinion.NOBODY) -> list[str]:
    """Three sentences: RRPO against DiffRO, which components, and what the answer does not reach (``heard``: who listened)."""
    by_name = {row.name: row for row in rows}
    whole = by_name.get(OVERALL)
    seeds = len({record.seed for record in selection.records})
    if whole is None:
        why = f"In no seed of this grid is the {primary().label} known of both RRPO and DiffRO"
        if not _policies(selection.records):
            why = ALONE
        return [
            f"{why}, so nothing is said about their difference.",
            f"It holds {len(selection.records)} cells of {len(selection.arms)} arms over {seeds} seeds.",
            heard,
        ]
    n = whole.test.mean.n
    said = (
        "an interim estimate without a test" if math.isnan(whole.holm_p) else f"paired t, Holm p = {whole.holm_p:.4f}"
    )
    first = (
        f"RRPO differs from DiffRO in {primary().label} by {_points(whole)} points over {n} "
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
    """How the two arms end: their paired difference in every outcome that has a better side, but the primary one."""
    seeds = sorted({record.seed for record in selection.records})
    pair = [record for record in selection.records if record.label in (BASE, RRPO)]
    said = []
    for outcome in OUTCOMES:
        if not outcome.direction or outcome.difference_unit != "gain" or outcome.name == primary().name:
            continue
        mean = t_interval(apply(difference(RRPO, BASE), outcome.values(pair), seeds))
        if mean.n:
            bounds = "" if math.isnan(mean.low) else f" [{100 * mean.low:+.1f}, {100 * mean.high:+.1f}]"
            said.append(f"{outcome.label} {100 * mean.mean:+.1f}{bounds}")
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
    outcomes = primary().values(records)
    how = f"{ALONE}. "
    if _policies(records):
        how = (
            f"Each cell optimised the policy for {value('optimize.steps')} steps of {value('optimize.batch')} roll-outs (lr "
            f"{value('optimize.lr')}, beta {value('optimize.beta')}, tau {value('optimize.tau')}, content weight "
            f"{value('optimize.content_weight')}, unless the arm says otherwise) against a frozen reward model, and was judged "
            f"on {value('optimize.eval_prompts')} evaluation prompts at steps {value('optimize.checkpoints')}. Primary outcome: "
            f"{primary().label} by the {gold().label}. {_family(selection)} "
        )
    return (
        f"{len(records)} cells: {len(selection.arms)} arms ({arms}) by {len(seeds)} seeds ({numbers(seeds)}), profile "
        f"{records[0].profile}, world {records[0].world_hash}. {how}Intervals are 95 % t-intervals over seeds, the unit of "
        f"analysis. {_correlation(outcomes, seeds)}{selection.counted} "
        "A seed redraws the annotated and the SFT utterances, raters, RM pre-training, SFT, fine-tuning, prompts and "
        "roll-out noise; corpus "
        f"renderer, codec, base policy and judges are one world. {_made(records)}"
    )


def _policies(records: Sequence[Record]) -> bool:
    return any(not record.points.empty for record in records)


def _family(selection: Selection) -> str:
    """What is tested and how; of a grid of settings, in each of them."""
    looks = ", ".join(map(str, selection.looks)) or "none"
    if settings.settings(selection.records):
        there = list(sensitivity.family(selection.planned))
        said = f"In each setting, secondary: {'; '.join(there) or 'no conclusion'}"
        lack = "" if len(there) == len(family()) else ", of which this grid has not all"
    else:
        absent = [name for name, weights in family().items() if not set(weights) <= set(selection.arms)]
        said = f"Primary family: {family_text()}"
        lack = f", of which this grid has not {'; '.join(absent)}" if absent else ""
    return (
        f"{said}; paired t on seeds, Holm over {len(family())}, only at the planned numbers of seeds ({looks}) and with the "
        f"whole family{lack}; beside it TOST with a margin of {margin_text()}."
    )


def _correlation(outcomes: Values, seeds: Sequence[int]) -> str:
    """What pairing bought: the correlation of RRPO's and DiffRO's seeds."""
    r = correlation(*([outcomes.get((arm, seed), math.nan) for seed in seeds] for arm in (RRPO, BASE)))
    return "" if math.isnan(r) else f"Achieved correlation of RRPO's and DiffRO's paired seeds: {r:+.2f}. "


def _made(records: Sequence[Record]) -> str:
    """What made the records: devices, commits, stage versions, and each arm's config by its hash."""
    arms = ", ".join(f"{label} {arm}" for label, arm in dict.fromkeys((r.label, r.arm_hash) for r in records))
    stages = ", ".join(f"{name} {version}" for name, version in sorted(stage_versions(records)))
    made = f", stage versions {stages}" if stages else ""
    code = f"Code: {', '.join(code_versions(records))}{made}. Arms by hash of their config: {arms}."
    return " ".join(filter(None, (devices(records), code)))

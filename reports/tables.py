"""The tables of a grid: results, ablation (plus one, minus one), reward models."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ablations.contrasts import BASE, COMPONENTS, NAMES, WHOLE, apply, arm_of, difference
from ablations.inference import correlation, holm, paired_test, wilson
from ablations.power import alpha_at
from ablations.records import GOLD_GAIN, Record
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import Interval, t_interval
from ablations.summary import FRAMES, POLICY_COLUMNS, RM_COLUMNS, gold_gains, over_seeds, table, value_of
from reports.factorial import GAP, ORACLE, gap_closed
from reports.store import Selection
from reports.verdicts import settled

HACKED = 0.1
"""A seed *hacked* when its hack rate ends this much above its start (the SFT policy under the same reward model)."""
TEST_SET = "rm_accuracy_test_"
"""How the accuracies on test sets other than the policy's own speakers begin."""
LANGUAGES = {"zh": "Mandarin", "cmn": "Mandarin", "en": "English", "de": "German"}
OPTIONAL = {
    "dnsmos": Column("dnsmos", "DNSMOS", "mark", +1),
    "plcmos": Column("plcmos", "PLCMOS", "mark", +1),
    "human_emos": Column("human_emos", "E-MOS", "mark", +1),
    "human_nmos": Column("human_nmos", "N-MOS", "mark", +1),
}
"""Columns of the main table that stand there once measured."""
ENDS = (Column("hack_rate", "hack rate, %", "percent"), Column("uptake", "shortcut uptake, points", "gain"))
"""What the table of components shows beside its measure."""
NO_OPINIONS: Mapping[str, Mapping[str, Interval]] = MappingProxyType({})


def main(
    selection: Selection, control: str = BASE, opinions: Mapping[str, Mapping[str, Interval]] = NO_OPINIONS
) -> Sheet:
    """The table of results, with tests against the control at a declared look, seeds that hacked, and the cost.

    ``opinions`` are listeners' means by arm, under the names of `OPTIONAL`.
    """
    records = selection.records
    plain = table(records, selection.planned)
    plain = replace(plain, title=f"Results of grid {selection.grid}", notes=selection.notes + plain.notes)
    if plain.columns[2].name != GOLD_GAIN:
        return plain
    gains, _ = gold_gains(records)
    measured = opinions.keys() | {
        name for name in OPTIONAL if any(math.isfinite(value_of(record, name, gains)) for record in records)
    }
    p, said = against(selection, control, gains)
    extra = [Column("p_control", f"p vs {control} (Holm)", "p"), Column("hacked", "seeds that hacked, %", "share")]
    extra += [OPTIONAL[name] for name in OPTIONAL if name in measured]
    extra += [Column("seconds_optimized", "training, s", "count"), Column("rollouts", "roll-outs", "count")]
    rows = []
    for row in plain.rows:
        own = selection.of(str(row[0]))
        values: list[Value] = [p.get(str(row[0]), math.nan), hacked_seeds(own)]
        values += [
            opinions.get(name, {}).get(str(row[0])) or over_seeds(own, name, gains)
            for name in OPTIONAL
            if name in measured
        ]
        values += [
            over_seeds(own, "seconds_optimized", gains).mean,
            float(np.mean([rollouts(r) for r in own] or [math.nan])),
        ]
        rows.append((*row, *values))
    absent = [c.heading for name, c in OPTIONAL.items() if name not in measured]
    notes = [
        said,
        f"Seed that hacked: hack rate ends more than {100 * HACKED:g} points above its start; share with Wilson's 95 % interval.",
        "Bold: best mean of the column, underlined or italic: second; no claim of significance, and oracle and "
        "placebo are not ranked.",
        f"Not measured: {', '.join(absent)}." if absent else "",
        "E-MOS and N-MOS: means of listeners' ratings, intervals by raters and seeds (table of listening)."
        if opinions
        else "",
    ]
    made = replace(plain, columns=(*plain.columns, *extra), rows=tuple(rows))
    return made.noted(*(note for note in notes if note))


def against(selection: Selection, control: str, gains: Mapping[tuple[str, int], float]) -> tuple[dict[str, float], str]:
    """Holm-adjusted paired t of every arm's gold gain against the control's, at a declared look only; and the note.

    A diverged cell takes its seed out of its arm's pairs; any other gap keeps the table interim.
    """
    if control not in selection.arms:
        if any(arm.startswith(f"{control}@") for arm in selection.arms):
            return {}, "No test here: arms are compared within their setting, in the tables of conclusions."
        return {}, f"No test here: {control} is not among the arms."
    seeds = sorted({seed for _, seed in {(r.label, r.seed) for r in selection.records} | selection.diverged})
    contrasts = {arm: difference(arm, control) for arm in selection.arms if arm not in FRAMES | {control}}
    pairs = {arm: apply(weights, gains, seeds) for arm, weights in contrasts.items()}
    values = {arm: x[np.isfinite(x)] for arm, x in pairs.items()}
    whole = settled(values, contrasts, seeds, selection.diverged)
    if not whole or len(seeds) not in selection.looks or len(seeds) < 2:
        planned = ", ".join(map(str, selection.looks)) or "none declared"
        return {}, f"Interim, n = {len(seeds)}: no test before every arm has the planned number of seeds ({planned})."
    adjusted = holm({arm: paired_test(x).t_p for arm, x in values.items()})
    alpha = alpha_at(len(seeds), selection.looks)
    note = (
        f"p vs {control}: gold gain at matched KL, paired t on {len(seeds)} seeds, Holm over {len(adjusted)} arms, to be held "
        f"against alpha = {alpha:.4f}; a secondary family (the declared one is in the table of effects)."
    )
    return adjusted, note


def hacked_seeds(own: Sequence[Record]) -> Interval:
    """Share of seeds that hacked (`HACKED`), with Wilson's interval; of the seeds whose policy moved."""
    rates = [r.points["hack_rate"] for r in own if "hack_rate" in r.points.columns and len(r.points) > 1]
    return wilson(sum(float(rate.iloc[-1] - rate.iloc[0]) > HACKED for rate in rates), len(rates))


def rollouts(record: Record) -> float:
    """Samples that the optimisation drew: steps x batch, by the record's config."""
    steps, batch = (record.params.get(f"profile.optimize.{name}", "null") for name in ("steps", "batch"))
    own = record.params.get("arm.steps", "null")
    steps = own if own != "null" else steps
    return math.nan if "null" in (steps, batch) else float(json.loads(steps) * json.loads(batch))


def ablation(selection: Selection, metric: str = GOLD_GAIN) -> Sheet | None:
    """Each component added to DiffRO and dropped from RRPO; None unless one of these pairs is there."""
    gains, _ = gold_gains(selection.records)
    unit, framed = unit_of(metric), bool(selection.of(ORACLE))
    columns = (
        Column("variant", "variant"),
        Column("arm", "arm"),
        Column("n", "n", "count"),
        Column(metric, f"{heading_of(metric)}", unit),
        Column("difference", f"difference to {BASE} or {WHOLE}", "gain" if unit in ("percent", "gain") else unit),
        Column("r", "r of pairs", "effect"),
        *([Column("closed", "gap closed, %", "share")] if framed else []),
        *(column for column in ENDS if column.name != metric),
    )
    variants = [("DiffRO", BASE, BASE)]
    variants += [(f"DiffRO + {NAMES[part]}", arm_of([part]), BASE) for part in COMPONENTS]
    variants += [("RRPO", WHOLE, WHOLE)]
    variants += [(f"RRPO - {NAMES[part]}", arm_of([p for p in COMPONENTS if p != part]), WHOLE) for part in COMPONENTS]
    seeds = sorted({record.seed for record in selection.records})
    outcomes = {(r.label, r.seed): value_of(r, metric, gains) for r in selection.records}
    rows: list[tuple[Value, ...]] = []
    for name, arm, reference in variants:
        own = selection.of(arm)
        if not any(math.isfinite(outcomes[arm, record.seed]) for record in own):
            continue
        change = apply(difference(arm, reference), outcomes, seeds) if arm != reference else np.empty(0)
        pair = [[outcomes.get((label, seed), math.nan) for seed in seeds] for label in (arm, reference)]
        moved: list[Value] = [t_interval(change), correlation(*pair) if arm != reference else math.nan]
        if framed:
            over = apply(difference(arm, BASE), outcomes, seeds) if arm != BASE else np.empty(0)
            moved.append(gap_closed(over, outcomes, seeds))
        others = [over_seeds(own, column.name, gains) for column in ENDS if column.name != metric]
        rows.append((name, arm, float(len(own)), over_seeds(own, metric, gains), *moved, *others))
    if len(rows) < 2:
        return None
    notes = (
        "Paired differences within seeds with 95 % t-intervals, descriptive: the tests are in the table of effects. "
        "'DiffRO + X' against "
        "DiffRO, 'RRPO - X' against RRPO. r: achieved correlation of the paired seeds, from three on.",
        *([GAP] if framed else []),
    )
    return Sheet("ablation", "Components one by one", columns, tuple(rows), notes)


def reward_models(selection: Selection) -> Sheet | None:
    """Each distinct reward model on in-language and cross-domain test sets, with its manipulation checks; None without any."""
    measured = {name for record in selection.records for name in record.scalars}
    known = {c.name for c in RM_COLUMNS}
    foreign = sorted(name for name in measured - known if name.startswith(TEST_SET))
    columns = [c for c in RM_COLUMNS if c.name in measured]
    columns[2:2] = [Column(name, f"{domain(name)}, %", "percent", +1) for name in foreign]
    if not columns:
        return None
    first: dict[str, str] = {}
    for arm in selection.arms:
        if own := selection.of(arm):
            first.setdefault(_reward_model(own[0]), arm)
    rows: list[tuple[Value, ...]] = [
        (arm, float(len(selection.of(arm))), *(over_seeds(selection.of(arm), c.name, {}) for c in columns))
        for arm in first.values()
    ]
    spoken = selection.records[0].params.get("profile.world.language", "").strip('"')
    notes = (
        "Accuracy of the emotion asked for by the reward model of each arm, trained on "
        f"{LANGUAGES.get(spoken, 'one language')}; mean over seeds ± half the 95 % t-interval. valid: its own speakers, unseen "
        "texts; test: the policy's speakers; other languages and synthesisers: the same emotions in speech of a kind that it was "
        "not trained on (cross-domain, until real corpora are in). Arms that share a reward model are shown once. Manipulation "
        "checks: ECE and confidence are LS's target, smoothness along interpolations EAM's, accuracy under FGM and PGD at a "
        "relative radius of 0.1 Adv's.",
    )
    head = (Column("arm", "RM of arm"), Column("n", "n", "count"))
    return Sheet("reward_models", "Reward models", (*head, *columns), tuple(rows), notes, FRAMES)


def domain(name: str) -> str:
    """A cross-domain test set in words, by the name of its accuracy: a language by its code, or a synthesiser."""
    short = name.removeprefix(TEST_SET)
    return LANGUAGES.get(short, short.replace("_", " "))


def _reward_model(record: Record) -> str:
    """What of an arm's config makes its reward model; that of the fine-tuning only where there is one."""
    kept: tuple[str, ...] = ("arm.rm_data", "arm.finetune", "arm.shuffle_labels", "arm.shortcut")
    if record.params.get("arm.finetune") != "false":
        kept += ("arm.regularizers.", "arm.rater_noise", "arm.rm_lr")
    params = {name: value for name, value in record.params.items() if name.startswith(kept)}
    return json.dumps(params or record.label, sort_keys=True)


def unit_of(metric: str) -> str:
    """How a measure is written: by its column, as percent where its name says a rate, plain otherwise."""
    known = {c.name: c.unit for c in (*POLICY_COLUMNS, *RM_COLUMNS)}
    rate = metric.endswith(("accuracy", "rate")) or "accuracy_" in metric
    return known.get(metric, "percent" if rate else "plain")


def heading_of(metric: str) -> str:
    """A measure in words."""
    known = {c.name: c.heading for c in (*POLICY_COLUMNS, *RM_COLUMNS)}
    return known.get(metric, metric.replace("_", " "))

"""Tables of a grid: results, components one by one (plus one, minus one), and reward models."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ablations.components import COMPONENTS, component
from ablations.judges import gold, tuning
from ablations.outcomes import COSTS, all_outcomes, find, hacked_share, shown
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import FRAMES, over_seeds, rm_columns, scalar, table
from ablations.stats.contrasts import Values, apply, corner_effect, difference
from ablations.stats.family import PRIMARY_OUTCOME
from ablations.stats.inference import correlation, ratio_of_means, wilson
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports import manipulation, recognition
from reports.loading import Selection
from rrpo.arms import BASE, RRPO, name_of
from rrpo.regularizers import CONTROLS

HACKED = 0.1
"""A seed *hacked* if its hacked share ends this far above its start (the SFT policy under the same reward model)."""
TEST_SET = "rm_accuracy_test_"
"""Prefix of the accuracies on test sets other than the policy's own speakers."""
LANGUAGES = {"zh": "Mandarin", "cmn": "Mandarin", "en": "English", "de": "German"}
OPINIONS = ("E-MOS", "N-MOS")
"""Listeners' opinions, which have a table of their own once there are ratings."""
ORACLE = "oracle"
"""Arm with the best possible reward model, which sets the scale."""
GAP = "Gap closed: share of oracle - DiffRO, a ratio of means with Fieller's 95 % interval; no value if the gap may be zero."
ENDS = ("hacked_share", "uptake")
"""Outcomes shown in the ablation table in addition to its measure."""


def main(selection: Selection, *, listened: bool = False) -> Sheet:
    """Return the table of results, with the share of seeds that hacked, and cost. ``listened``: whether there are ratings."""
    records = selection.records
    plain = table(records, selection.planned)
    plain = replace(plain, title=f"Results of grid {selection.grid}", notes=selection.notes + plain.notes)
    if not any(column.name == PRIMARY_OUTCOME for column in plain.columns):
        return plain
    costs = [cost.values(records) for cost in COSTS]
    extra = [Column("hacked", "seeds that hacked, %", "share")]
    extra += [Column(cost.name, cost.heading, cost.unit) for cost in COSTS]
    rows = []
    for row in plain.rows:
        arm = str(row[0])
        arm_records = selection.of(arm)
        seeds = [record.seed for record in arm_records]
        rows.append((*row, hacked_seeds(arm_records), *(over_seeds(arm, seeds, cost).mean for cost in costs)))
    measured = {outcome.name for outcome in shown(records)}
    missing = [outcome.label for outcome in all_outcomes() if outcome.name not in measured]
    missing += [] if listened else OPINIONS
    notes = [
        f"A seed hacked if its hacked share ends over {100 * HACKED:g} points above its start; Wilson's 95 % interval.",
        "Bold: best mean of the column; underlined or italic: second best. This does not imply significance. Oracle "
        "and controls are not ranked.",
        f"Not measured: {', '.join(missing)}." if missing else "",
        "Diverged cells are excluded from the means here; in the first table they count as 0."
        if selection.diverged
        else "",
    ]
    results = replace(plain, columns=(*plain.columns, *extra), rows=tuple(rows))
    return results.with_notes(*(note for note in notes if note))


def hacked_seeds(records: Sequence[Record]) -> Interval:
    """Return the share of seeds that hacked (`HACKED`), with Wilson's interval, among the seeds whose policy was optimized."""
    share = hacked_share(gold()).curve
    curves = [share(record) for record in records if share and len(record.points) > 1]
    rises = [float(y[-1] - y[0]) for y in curves]
    finite = [rise for rise in rises if math.isfinite(rise)]
    return wilson(sum(rise > HACKED for rise in finite), len(finite))


def ablation(selection: Selection, metric: str = PRIMARY_OUTCOME) -> Sheet | None:
    """Return each component added to DiffRO and removed from RRPO (or added, if it is not the paper's); None if there is no
    such pair."""
    records = selection.records
    outcome, has_oracle = find(metric), bool(selection.of(ORACLE))
    ends = [find(name) for name in ENDS if name != metric]
    columns = (
        Column("variant", "variant"),
        Column("arm", "arm"),
        Column("n", "n", "count"),
        Column(metric, outcome.heading, outcome.unit),
        Column("difference", f"difference from {BASE} or {RRPO}", outcome.difference_unit),
        Column("r", "r of pairs", "effect"),
        *([Column("closed", "gap closed, %", "share")] if has_oracle else []),
        *(Column(end.name, end.heading, end.unit) for end in ends),
    )
    variants = [("DiffRO", BASE, BASE)]
    variants += [(f"DiffRO + {c.label}", name_of([c.name]), BASE) for c in COMPONENTS]
    variants += [("RRPO", RRPO, RRPO)]
    corners = {c: next(arm for arm in corner_effect(c.name) if arm != RRPO) for c in COMPONENTS}
    variants += [(f"RRPO {'-' if c.paper else '+'} {c.label}", arm, RRPO) for c, arm in corners.items()]
    seeds = sorted({record.seed for record in records})
    outcomes = outcome.values(records)
    end_values = [end.values(records) for end in ends]
    rows: list[tuple[Value, ...]] = []
    for name, arm, reference in variants:
        arm_records = selection.of(arm)
        if not any(math.isfinite(outcomes.get((arm, record.seed), math.nan)) for record in arm_records):
            continue
        change = apply(difference(arm, reference), outcomes, seeds) if arm != reference else np.empty(0)
        pair = [[outcomes.get((label, seed), math.nan) for seed in seeds] for label in (arm, reference)]
        moved: list[Value] = [t_interval(change), correlation(*pair) if arm != reference else math.nan]
        if has_oracle:
            above_base = apply(difference(arm, BASE), outcomes, seeds) if arm != BASE else np.empty(0)
            moved.append(gap_closed(above_base, outcomes, seeds))
        arm_seeds = [record.seed for record in arm_records]
        end_means = [over_seeds(arm, arm_seeds, values) for values in end_values]
        rows.append((name, arm, float(len(arm_records)), over_seeds(arm, arm_seeds, outcomes), *moved, *end_means))
    if len(rows) < 2:
        return None
    notes = (
        "Paired differences within seeds with 95 % t-intervals; descriptive (the tests are in the first table). "
        "'DiffRO + X' is compared with DiffRO, 'RRPO - X' and 'RRPO + X' with RRPO. r: correlation of the paired "
        "seeds, from three seeds on.",
        *([GAP] if has_oracle else []),
    )
    return Sheet("ablation", "Components one by one", columns, tuple(rows), notes)


def gap_closed(values: np.ndarray, outcomes: Values, seeds: Sequence[int]) -> Interval:
    """Return the share of the gap oracle - DiffRO closed by the differences ``values [len(seeds)]``; n = 0 if empty."""
    if not len(values):
        return t_interval([])
    return ratio_of_means(values, apply(difference(ORACLE, BASE), outcomes, seeds))


def reward_models(selection: Selection) -> Sheet | None:
    """Return each distinct reward model's results on in-language and cross-domain test sets, with manipulation checks; None if
    there is none."""
    scalars = {name for record in selection.records for name in record.scalars}
    columns = rm_columns(selection.records)
    foreign = sorted(name for name in scalars - {c.name for c in columns} if name.startswith(TEST_SET))
    columns[2:2] = [Column(name, f"{domain(name)}, %", "percent", +1) for name in foreign]
    columns[:0] = recognition.columns(selection)
    if not columns:
        return None
    first_arm: dict[str, str] = {}
    for arm in selection.arms:
        if arm_records := selection.of(arm):
            first_arm.setdefault(_reward_model(arm_records[0]), arm)
    values = [scalar(c.name, selection.records) for c in columns]
    seeds = {arm: [record.seed for record in selection.of(arm)] for arm in first_arm.values()}
    rows: list[tuple[Value, ...]] = [
        (arm, float(len(arm_records)), *(over_seeds(arm, arm_records, by_cell) for by_cell in values))
        for arm, arm_records in seeds.items()
    ]
    targets = ", ".join(f"{c.label}'s target is {c.check.text}" for c in COMPONENTS if c.check)
    config = selection.records[0].config
    trained_on = LANGUAGES.get(config.get("profile.world.language", "").strip('"'), "one language")
    if "profile.manifests.rm_pretrain.digest" in config:
        trained_on = "the user's own speech"
    notes = (
        "Accuracy of each arm's reward model on the target emotion; reward models are trained on "
        f"{trained_on}. Mean over seeds ± half the 95 % t-interval. valid: its own speakers, unseen "
        "texts; test: the policy's speakers; other languages and synthesizers: the same emotions in a kind of speech that it was "
        "not trained on (cross-domain, until there are real corpora). Arms that share a reward model are shown once. "
        f"Manipulation checks: {targets}.",
        "Gradient fidelity: one token, or 30 % of the tokens, are swapped in samples of the SFT policy. The change "
        "predicted by the reward's gradient is correlated with the true change of the same reward model (own), and "
        f"with the change of the {tuning().label}'s log-probability (judge), which also depends on how well the two "
        "models agree on such swaps.",
    )
    controls = {
        arm: manipulation.check(selection.records, component(arm), difference(arm, BASE))
        for arm in selection.arms
        if arm in CONTROLS
    }
    head = (Column("arm", "RM of arm"), Column("n", "n", "count"))
    return Sheet(
        "reward_models",
        "Reward models",
        (*head, *columns),
        tuple(rows),
        (*notes, *recognition.notes(selection), *manipulation.note(controls)),
        FRAMES,
    )


def domain(name: str) -> str:
    """Return the name of a cross-domain test set from the name of its accuracy: a language, or a synthesizer."""
    short = name.removeprefix(TEST_SET)
    return LANGUAGES.get(short, short.replace("_", " "))


def _reward_model(record: Record) -> str:
    """Return the part of an arm's config that determines its reward model, including fine-tuning only if there is any."""
    prefixes: tuple[str, ...] = ("arm.rm_data", "arm.finetune", "arm.shuffle_labels", "arm.shortcut")
    prefixes += ("arm.rm_utterances", "arm.rm_speakers", "arm.rm_seed")
    prefixes += ("arm.members", "arm.combination", "arm.variance_penalty", "arm.rounds")
    if record.config.get("arm.finetune") != "false":
        prefixes += ("arm.regularizers.", "arm.rater_noise", "arm.rm_lr", "arm.annotated")
    params = {name: value for name, value in record.config.items() if name.startswith(prefixes)}
    return json.dumps(params or record.label, sort_keys=True)

"""Compare the best trial with a baseline on fresh seeds, which no search used.

The baseline has the default values (those of the first trial: the paper's, and the profile's learning rate, beta and content
weight), or is the best trial of an equally tuned study. This guards against selection bias: the value of the best of many noisy
trials is biased upwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial
from rich.console import Console

from ablations.commands import print_line
from ablations.judges import tuning
from ablations.rendering.sheet import Column, Sheet, Value, show
from ablations.stats.family import MARGIN
from ablations.stats.inference import varies
from ablations.stats.statistics import Interval, in_points, listed, t_interval
from rrpo.config import ArmConfig
from rrpo.errors import InputError
from rrpo.experiment.dataflow import sft_arm_of
from studies.catalogue import study_of
from studies.results import ranked
from studies.search import Search, counted
from studies.storage import IDENTITY, differences, existing_study
from studies.trial import FRESH_SEED, KL, OBJECTIVES, measure

ALPHA = 0.05
"""Significance level of one check. A study's k-th check is made at `ALPHA` / k."""
CHECKS = "checks"
"""User attribute of the study: trial, seeds and baseline of every check."""
VERIFY = {"": 8, "smoke": 2}
"""Default number of fresh seeds by profile; the smoke profile supports no conclusions."""
MOST = 20
"""Largest number of fresh seeds."""
BUDGET = ("profile", "optimize", "seeds", "objectives")
"""Parts of the identity that two studies must share to be equally tuned, in addition to the number of trials and the ranges of
the hyperparameters that both search."""
Outcomes = Mapping[int, Mapping[str, float]]
"""Outcomes by seed and name."""


class Baseline(NamedTuple):
    """What the best trial is compared with."""

    name: str
    """Name for display."""
    arm: ArmConfig
    """Its arm."""


class Fresh(NamedTuple):
    """What was measured on fresh seeds."""

    best: Outcomes
    """Of the best trial."""
    baseline: Outcomes
    """Of its baseline, on the same seeds."""
    sft: Outcomes | None = None
    """Of the policy before optimization, on the same seeds; None if no objective needs a policy."""
    missing: str = ""
    """Why seeds are missing; empty if none is."""


def check(search: Search, study: OptunaStudy, console: Console) -> tuple[Sheet | None, bool]:
    """Compare the best trial with its baseline on fresh seeds.

    Return the table (None if they are the same arm), and whether any stage failed. Raises InputError if the baseline does not
    exist yet, and KeyboardInterrupt when stopped; finished stages are kept.
    """
    best, rival = ranked(study)[0], baseline(search, study)
    if search.definition.arm(best.params) == rival.arm:
        print_line(console, f"The best trial is the same arm as {rival.name}: there is nothing to check.")
        return None, False
    fresh = evaluate(search, best, rival, console)
    number = 1 if fresh.missing else count(search, study, best, rival, fresh.best.keys())
    return verdict(search, best, rival, fresh, number), bool(fresh.missing)


def baseline(search: Search, study: OptunaStudy) -> Baseline:
    """Return the default values, or the best trial of the study `Search.against`.

    Raises InputError if that study has no complete trial, or was not tuned as ``study`` was.
    """
    against = search.against
    if not against:
        return Baseline("the default values", search.definition.arm(search.definition.paper))
    baseline_study = existing_study(search.storage, search.spec.store, against)
    if running := [trial.number for trial in counted(baseline_study) if not trial.state.is_finished()]:
        got = f"{len(running)} running trials, the first is {running[0]}"
        raise InputError(f"study {against} is not finished", got=got, fix="wait for it, or end it, then run this again")
    identities = [optuna_study.user_attrs.get(IDENTITY, {}) for optuna_study in (baseline_study, study)]
    common = set.intersection(*(set(identity.get("space", {})) for identity in identities))
    baseline_budget, budget = (
        {name: identity.get(name) for name in BUDGET}
        | {f"range of {name}": identity["space"][name] for name in sorted(common)}
        | {"trials": len(counted(optuna_study))}
        for identity, optuna_study in zip(identities, (baseline_study, study), strict=True)
    )
    if mismatches := differences(baseline_budget, budget):
        raise InputError(
            f"study {against} was not tuned as much as {search.name}",
            got="; ".join(mismatches),
            fix="run both with the same options and to the same number of trials",
        )
    best_trials = ranked(baseline_study)
    if not best_trials:
        raise InputError(
            f"study {against} has no best trial", got="no complete trial", fix="see its report for the reasons"
        )
    identity = baseline_study.user_attrs[IDENTITY]
    arm = study_of(identity["study"], identity["arm"]).arm(best_trials[0].params)
    return Baseline(f"trial {best_trials[0].number} of {against}", arm)


def evaluate(search: Search, best: FrozenTrial, rival: Baseline, console: Console) -> Fresh:
    """Build and measure the best trial, its baseline and SFT on fresh seeds."""
    spec = replace(search.spec, seeds=tuple(range(FRESH_SEED, FRESH_SEED + search.verify)))
    ours = search.definition.arm(best.params)
    arms = [ours, rival.arm, *([sft_arm_of(ours)] if spec.policy else [])]
    stages = [stage for seed in spec.seeds for arm in arms for stage in spec.stages(arm, seed)]
    print_line(console, f"checking trial {best.number} against {rival.name} on {search.verify} fresh seeds")
    failures = search.builder(console).build(stages)
    seeds = [s for s in spec.seeds if all(x.done(spec.store) for arm in arms for x in spec.stages(arm, s))]
    outcomes = [{seed: measure(spec, arm, seed) for seed in seeds} for arm in arms]
    why = "; ".join(f"{title}: {reason}" for title, reason in failures.items())
    return Fresh(outcomes[0], outcomes[1], outcomes[2] if spec.policy else None, why)


def count(search: Search, study: OptunaStudy, best: FrozenTrial, baseline: Baseline, seeds: Collection[int]) -> int:
    """Return the number of this check among the study's complete checks on fresh seeds, from 1, and record it in the study.

    A repeated check keeps its number. A check on fewer than two seeds compares nothing and is not recorded.
    """
    if len(seeds) < 2:
        return 1
    entry = {"trial": best.number, "seeds": sorted(seeds), "rival": baseline.name}
    with search.lock():
        checks = study.user_attrs.get(CHECKS, [])
        if entry not in checks:
            checks = [*checks, entry]
            study.set_user_attr(CHECKS, checks)
    return int(checks.index(entry)) + 1


def verdict(search: Search, best: FrozenTrial, baseline: Baseline, fresh: Fresh, check: int = 1) -> Sheet:
    """Return a table that tests whether the best trial differs from its baseline in the first objective.

    The last note states the answer. The other objectives, and SFT, are shown without a test. ``check`` is the number of the
    study's check: it is made at level `ALPHA` / ``check``.
    """
    alpha = ALPHA / check
    seeds = sorted(fresh.best.keys() & fresh.baseline.keys())
    columns = (
        Column("objective", "objective"),
        Column("best", f"trial {best.number}", "percent"),
        Column("rival", baseline.name, "percent"),
        Column("difference", "difference", "gain"),
        *([Column("sft", "SFT", "percent")] if fresh.sft else []),
    )
    rows: list[tuple[Value, ...]] = []
    by_seed: list[np.ndarray] = []
    for name in search.spec.objectives:
        pair = [_values(outcomes, name, seeds) for outcomes in (fresh.best, fresh.baseline)]
        sft = [t_interval(_values(fresh.sft, name, seeds))] if fresh.sft else []
        by_seed.append(pair[0] - pair[1])
        rows.append((OBJECTIVES[name].label, *map(t_interval, pair), t_interval(by_seed[-1], 1 - alpha), *sft))
    first = rows[0][3]
    assert isinstance(first, Interval)
    why = (
        f"seeds are missing: {fresh.missing}"
        if fresh.missing
        else "values are not finite"
        if first.n < len(seeds)
        else ""
    )
    complete = len(seeds) > 1 and not why  # which seeds are missing may depend on the arm
    relation = _relation(search.directions[0], by_seed[0], first) if complete else "not to be compared with"
    judge = f" by the {tuning().label}" if search.spec.policy else ""
    by = f": {in_points(first)} points" if complete else ""
    suffix = f" (check {check} of this study)" if len(seeds) > 1 and not fresh.missing else ""
    sentence = f"On {len(seeds)} fresh seeds trial {best.number} is {relation} {baseline.name}{judge}{by}{suffix}."
    level = f"alpha {ALPHA:g}"
    if check > 1:
        total = min(1.0, sum(ALPHA / k for k in range(1, check + 1)))
        level += (
            f" / {check} = {alpha:.4f} (Bonferroni over {check} checks of this study; stopping at the first "
            f"significant one has a chance of a false one of up to {total:.3f})"
        )
    notes = (
        f"Fresh development seeds {listed(seeds)}, which the search never used. The first objective is compared by the paired "
        f"t-interval of the difference, {level}: if it excludes 0, the two differ; otherwise, if it lies within "
        f"{100 * MARGIN:g} points of 0, they are equivalent. Values in percent, differences in points.",
        *_against_sft(fresh, best, baseline, seeds),
        *([f"Nothing is decided, because {why}."] if why else []),
        sentence,
    )
    return Sheet("fresh", "The best trial on fresh seeds", columns, tuple(rows), notes)


def _values(outcomes: Outcomes, name: str, seeds: Sequence[int]) -> np.ndarray:
    return np.array([outcomes[seed][name] for seed in seeds])


def _against_sft(fresh: Fresh, best: FrozenTrial, baseline: Baseline, seeds: Sequence[int]) -> list[str]:
    """Return how far both policies went from SFT, and what its column means; empty without SFT."""
    if not fresh.sft:
        return []
    kl = [show(t_interval(_values(outcomes, KL, seeds)), "mark") for outcomes in (fresh.best, fresh.baseline)]
    return [
        f"KL to SFT, nats/token: trial {best.number} {kl[0]}, {baseline.name} {kl[1]}. SFT is the policy before optimization; it "
        "is its own reference for an odd length, every other policy meets that rule by chance. Not tested."
    ]


def _relation(direction: str, values: np.ndarray, difference: Interval) -> str:
    if not varies(values):
        return "not to be compared (no spread over seeds) with"
    if difference.low > 0 or difference.high < 0:
        return "better than" if (difference.mean > 0) == (direction == "maximize") else "worse than"
    within = max(-difference.low, difference.high) < MARGIN
    return "equivalent to" if within else "not distinguishable from"

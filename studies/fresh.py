"""The winner and the paper's values once more, on seeds that the search never used: the guard against selection optimism."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from ablations.estimate import Estimator, wall
from ablations.family import MARGIN
from ablations.inference import equivalence, paired_test
from ablations.jobs import longest_first, missing_below, stage_tasks
from ablations.judges import tuning
from ablations.launchers.pool import Pool
from ablations.progress import Display
from ablations.scheduler import Failure, Scheduler, Task
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import Interval, t_interval
from studies.search import Search
from studies.trial import FRESH_SEED, OBJECTIVES, measure

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial

ALPHA = 0.05
"""Of one check; of several on the same seeds, divided by their number."""
CHECKS = "checks"
"""Attribute of the study: trial and seeds of every check."""
VERIFY = 8
"""Fresh seeds where the user does not say."""
MOST = 20
"""Most of them."""
VERIFY_SMOKE = 2
"""The same on the smoke profile, from which nothing is to be concluded."""


def evaluate(
    search: Search, best: FrozenTrial, count: int, pool: Pool, console: Console
) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]], str]:
    """Every outcome by fresh seed, of the best trial and of the paper's values; and why seeds are missing, if any are.

    Raises KeyboardInterrupt when it was stopped; what was built is kept.
    """
    question = replace(search.question, seeds=tuple(range(FRESH_SEED, FRESH_SEED + count)))
    arms = [search.definition.arm(best.params), search.definition.arm(search.definition.paper)]
    wanted = [stage for seed in question.seeds for arm in arms for stage in question.stages(arm, seed)]
    stages = missing_below(wanted, question.store)
    estimator = Estimator(question.store, question.device)
    if stages:
        say = f"checking trial {best.number} against the paper's values on {count} fresh seeds: {len(stages)} stages, "
        console.print(say + wall(stages, estimator, pool.capacity), highlight=False, soft_wrap=True)
    graph = stage_tasks(stages, question.store, question.device, longest_first(stages, estimator))
    watching = _Watching(console, len(graph))
    with watching:
        Scheduler(graph, pool, search.folder / "logs", watching).run()
    found: list[dict[int, dict[str, float]]] = [{}, {}]
    for seed in question.seeds:
        if all(s.done(question.store) for arm in arms for s in question.stages(arm, seed)):
            for own, arm in zip(found, arms, strict=True):
                own[seed] = measure(question, arm, seed)
    return found[0], found[1], "; ".join(watching.reasons)


class _Watching(Display):
    """Counts stages, and keeps why some have no result."""

    def __init__(self, console: Console, stages: int) -> None:
        super().__init__(console, stages, 0, lambda: f"{self.cells - self.done} stages", counted="stage")
        self.reasons: list[str] = []

    def finished(self, slot: int | None, task: Task, result: object, seconds: float) -> None:
        """Scheduler's event."""
        self._free(slot)
        self.done += 1
        self.line(f"stage {self.done} of {self.cells} built: {task.title}")

    def failed(self, slot: int | None, task: Task, failure: Failure) -> None:
        """Scheduler's event."""
        super().failed(slot, task, failure)
        if failure.cause == task.title:
            self.reasons.append(f"{task.title}: {failure.message} (log: {failure.log})")


def count(search: Search, study: OptunaStudy, best: FrozenTrial, seeds: Collection[int]) -> int:
    """Which check on fresh seeds this one is, from 1. It is written down in the study; the same one again keeps its number.

    One that compares nothing, on fewer than two seeds, is not written down.
    """
    if len(seeds) < 2:
        return 1
    this = {"trial": best.number, "seeds": sorted(seeds)}
    with search.lock():
        made = study.user_attrs.get(CHECKS, [])
        if this not in made:
            made = [*made, this]
            study.set_user_attr(CHECKS, made)
    return int(made.index(this)) + 1


def verdict(
    search: Search,
    best: FrozenTrial,
    best_outcomes: Mapping[int, Mapping[str, float]],
    paper_outcomes: Mapping[int, Mapping[str, float]],
    missing: str = "",
    check: int = 1,
) -> Sheet:
    """Whether the winner differs from the paper's values in the first objective; the last note is the answer.

    The other objectives stand beside it, without a test. ``check`` is which one on these seeds: all so far share `ALPHA`.
    """
    alpha = ALPHA / check
    seeds = sorted(best_outcomes.keys() & paper_outcomes.keys())
    first = search.question.objectives[0]
    columns = (
        Column("objective", "objective"),
        Column("best", f"trial {best.number}", "percent"),
        Column("paper", "paper's values", "percent"),
        Column("difference", "difference", "gain"),
        Column("t_p", "p (paired t)", "p"),
        Column("tost_p", f"p (TOST, ±{100 * MARGIN:g})", "p"),
    )
    rows: list[tuple[Value, ...]] = []
    for name in search.question.objectives:
        pair = [np.array([outcomes[seed][name] for seed in seeds]) for outcomes in (best_outcomes, paper_outcomes)]
        x = pair[0] - pair[1]
        test = paired_test(x)
        tests = (test.t_p, equivalence(x, MARGIN)) if name == first else (math.nan,) * 2
        rows.append((OBJECTIVES[name].text, *(t_interval(values) for values in pair), test.mean, *tests))
    word = _word(search.directions[0], rows[0], alpha) if len(seeds) > 1 else "not to be compared with"
    judge = f" by the {tuning().label}" if search.question.policy else ""
    which = f" (check {check} on these seeds)" if len(seeds) > 1 else ""
    sentence = f"On {len(seeds)} fresh seeds trial {best.number} is {word} the paper's values{judge}{which}."
    level = f"alpha {ALPHA:g}"
    if check > 1:
        total = min(1.0, sum(ALPHA / k for k in range(1, check + 1)))
        level += (
            f" / {check} = {alpha:.4f} (Bonferroni over {check} checks of this study on these seeds; whoever stops at the first "
            f"claim has a chance of a false one of up to {total:.3f})"
        )
    notes = (
        f"Fresh development seeds {_span(seeds)}, which the search never used; one comparison, of the first objective: paired t, "
        f"two-sided, {level}; TOST with a margin of {100 * MARGIN:g} points. Values in percent, differences in points.",
        *([f"Seeds are missing: {missing}."] if missing else []),
        sentence,
    )
    return Sheet("fresh", "The winner on fresh seeds", columns, tuple(rows), notes)


def _word(direction: str, row: tuple[Value, ...], alpha: float) -> str:
    difference, t_p, tost_p = row[3:]
    assert isinstance(difference, Interval)
    assert isinstance(t_p, float)
    assert isinstance(tost_p, float)
    if t_p < alpha:
        return "better than" if (difference.mean > 0) == (direction == "maximize") else "worse than"
    return "equivalent to" if tost_p < alpha else "not distinguishable from"


def _span(seeds: Sequence[int]) -> str:
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else ", ".join(map(str, seeds)) or "(none)"

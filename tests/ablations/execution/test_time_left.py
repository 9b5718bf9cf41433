"""From the second seed on, the time left is right within a quarter: grids simulated with an artificial clock."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import fakes
import pytest
from tasks import marked

from ablations.execution.estimate import Estimator
from ablations.execution.jobs import missing_stages, stage_tasks, tasks
from ablations.execution.launchers.pool import Task
from ablations.execution.time_left import TimeLeft
from ablations.grids import GRIDS
from rrpo.experiment.cell import Cell
from rrpo.profiles import EMBEDDED

WORK = {
    "optimize": 200.0,
    "sft": 36,
    "pretrain": 19,
    "finetune": 16,
    "speech": 8,
    "score": 20,
    "fidelity": 5,
    "examine": 4,
}
"""Stage -> measured seconds, for the stages of a seed; all others take one second."""
COSTS = {"sft": 0.1, "diffro": 0.7, "rrpo": 2.0}
"""Arm -> factor on the seconds of its policy optimization."""
WITHIN = 0.25
EACH = 7
"""Number of ends of tasks between two estimates."""


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def seconds_of(cells: list[Cell], noise: float) -> dict[str, float]:
    """Return task key -> seconds of its stage: the usual seconds times the arm's factor, with relative noise up to ``noise``."""
    chance = random.Random(0)
    cost = {c.stages["optimized"].folder: COSTS.get(c.label, 1.0) for c in cells}
    stages = missing_stages(cells, [], Path("none"))
    return {
        s.folder: WORK.get(s.name, 1.0) * cost.get(s.folder, 1.0) * chance.uniform(1 - noise, 1 + noise) for s in stages
    }


def play(
    graph: list[Task], time_left: TimeLeft, clock: Clock, seconds: Mapping[str, float], workers: int
) -> list[tuple[str, float, float]]:
    """Simulate the scheduler, whose parent does the tasks marked ``here`` at once. Return, for each task in the order of their
    ends: key, time of its end, time left then (of one in `EACH`, NaN of the others)."""
    graph_of = {task.key: task for task in graph}
    waiting = dict(graph_of)
    running: dict[str, tuple[float, float]] = {}
    ended = []
    while waiting or running:
        ready = sorted(
            (t for t in waiting.values() if not t.needs & (waiting.keys() | running.keys())), key=lambda t: t.priority
        )
        free = workers - sum(not graph_of[key].here for key in running)
        for task in [t for t in ready if t.here] + [t for t in ready if not t.here][:free]:
            del waiting[task.key]
            running[task.key] = clock.now, clock.now + seconds.get(task.key, 0.0)
            time_left.started(task.key)
        ends = min(running, key=lambda key: running[key][1])
        since, clock.now = running.pop(ends)
        for key, (start, end) in running.items():
            time_left.progressed(key, round(100 * (clock.now - start) / (end - start)), 100)
        time_left.ended(ends, clock.now - since)
        ended.append((ends, clock.now, time_left.seconds() if len(ended) % EACH == 0 else math.nan))
    return ended


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("grid", "before"),
    [("loo", None), ("loo", 0.4), ("loo", 2.5), ("full", 2.5)],
    ids=["new folder", "faster now", "slower now", "full, slower now"],
)
def test_from_the_second_seed_on(tmp_path: Path, grid: str, before: float | None, workers: int):
    """Arms of different cost share stages. In an earlier run of other seeds, stages took ``1 / before`` times as long."""
    cells = list(GRIDS[grid].cells(EMBEDDED, range(101, 106)))
    if before is not None:
        past = list(GRIDS[grid].cells(EMBEDDED, range(1, 3)))
        durations = seconds_of(past, 0.1)
        for stage in missing_stages(past, [], tmp_path):
            marked(tmp_path, stage, durations[stage.folder] / before)
    clock, estimator = Clock(), Estimator(tmp_path)
    graph = tasks(cells, [], tmp_path, "cpu", None)  # type: ignore[arg-type]
    stages = {stage.folder: stage for stage in missing_stages(cells, [], tmp_path)}
    time_left = TimeLeft(graph, stages, estimator, workers, clock)
    seconds = seconds_of(cells, 0.1)
    ended = play(graph, time_left, clock, seconds, workers)
    first = {f"cell-{cell.hash[:20]}" for cell in cells if cell.seed == 101}
    *_, begin = (index for index, (key, _, _) in enumerate(ended) if key in first)
    end, longest = ended[-1][1], max(seconds.values())
    told = [(now, left) for _, now, left in ended[begin:] if not math.isnan(left)]
    assert len(told) > 10
    for now, left in told:
        assert left == pytest.approx(end - now, rel=WITHIN) or end - now < longest


def test_of_stages_that_run(tmp_path: Path):
    """Three stages of 100 s on two workers: the first resumes at one half, the second is slower than estimated."""
    cells = fakes.cells(["a", "b", "c"], [1])
    stages = [cell.stages["optimized"] for cell in cells]
    for stage in stages:
        marked(tmp_path, stage, 100.0)
    clock = Clock()
    graph = stage_tasks(stages, tmp_path, "cpu")
    time_left = TimeLeft(
        graph, {task.key: stage for task, stage in zip(graph, stages, strict=True)}, Estimator(tmp_path), 2, clock
    )
    first, second, third = (task.key for task in graph)
    assert str(time_left) == "about 3 min"
    time_left.started(first)
    time_left.started(second)
    time_left.progressed(first, 50, 100)
    assert time_left.seconds() == 150.0, "50 s of the first, then the third"
    clock.now = 20.0
    assert time_left.seconds() == 160.0, "the first reported nothing new: half of 120 s; then the third"
    time_left.progressed(second, 0, 100)
    time_left.progressed(first, 60, 100)
    time_left.progressed(second, 10, 100)
    assert time_left.seconds() == pytest.approx(0.4 * (90 + 20) + 100)
    time_left.ended(first, 100.0)
    time_left.stopped(second)
    assert time_left.seconds() == 100.0, "the first is done, the others start from the beginning"
    time_left.ended(second)
    time_left.ended(third, 100.0)
    assert str(time_left) == "0 s"


def test_a_failed_part_of_a_stack_is_awaited_again(tmp_path: Path):
    """A stack of two stages of 100 s: one ends, the other one is retried on its own; a third of 100 s needs both."""
    stages = [cell.stages["optimized"] for cell in fakes.cells(["a", "b", "c"], [1])]
    for stage in stages:
        marked(tmp_path, stage, 100.0)
    done, failed, after = stage_tasks(stages, tmp_path, "cpu")
    stack = replace(done, key="stack", parts=(done, failed))
    after = replace(after, needs=frozenset({done.key, failed.key}))
    by_key = {stage.folder: stage for stage in stages}
    time_left = TimeLeft([stack, after], by_key, Estimator(tmp_path), 2, Clock())
    time_left.started(stack.key)
    assert time_left.seconds() == 300.0
    time_left.ended(done.key, 100.0)
    time_left.stopped(failed.key)
    time_left.ended(stack.key)
    assert time_left.seconds() == 200.0
    time_left.started(failed.key)
    time_left.ended(failed.key, 100.0)
    assert time_left.seconds() == 100.0


def test_nothing_is_said_of_what_was_never_built(tmp_path: Path):
    (stage,) = (cell.stages["optimized"] for cell in fakes.cells(["a"], [1]))
    (task,) = stage_tasks([stage], tmp_path, "cpu")
    assert str(TimeLeft([task], {task.key: stage}, Estimator(tmp_path, "cuda"), 1)) == "unknown"

"""Stack the trainings of several cells into one task, and ensure that each seed uses one executor.

`rrpo.stacking` builds a stack. Its members have the same keys as single builds, and results that are equal up to rounding.
Rounding differences grow along the trajectory of a policy optimization, so those of a seed must all use the same executor (single
or stacked); otherwise the differences between arms would include the difference between executors.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from types import MappingProxyType

from ablations.execution import packing
from ablations.execution.estimate import Estimator
from ablations.execution.launchers.pool import Task
from ablations.tracking.records import OPTIMIZED, Record
from rrpo.errors import InputError, positive
from rrpo.experiment.cell import Cell
from rrpo.identity import content_hash
from rrpo.pipeline.executor import MARK, OPTIMIZATION, PRECISIONS, Executor
from rrpo.pipeline.stages import MARKER, Stage, walk
from rrpo.stacking.groups import stack_group

STACK_SIZE = re.compile(r"\(\d+\)")
"""The size of a stack in an executor's text; sizes may differ within a seed."""


def size(text: str, device: str, cells: Sequence[Cell], store: Path, gpu_mib: int | None, tasks: int) -> int:
    """Return the number of cells to optimize at once, from the option ``--stack N|auto``; 0 means no stacking.

    Args:
        text: Value of the option.
        device: ``cpu`` or ``cuda``. On the CPU, ``auto`` is 0: see docs/performance.md.
        cells: The requested cells.
        store: Runs folder with stages whose memory was measured.
        gpu_mib: Memory of a GPU in MiB, None if unknown.
        tasks: Number of tasks that share a GPU.

    Raises:
        InputError: ``text`` is neither a positive number nor ``auto``.
    """
    if text != "auto":
        if not text.isdecimal():
            raise InputError("--stack takes a number of cells, or auto", got=text, fix="for example --stack 8")
        members = positive("--stack", int(text))
        return members if members > 1 else 0
    if device != "cuda":
        return 0
    stages = [
        stage for stage in walk(*(s for cell in cells for s in cell.stages.values())) if stage.name == OPTIMIZATION
    ]
    return packing.members_a_stack(
        stages, Estimator(store, device), gpu_mib, tasks
    )  # 1 is a stack of one, unlike --stack 1


def stack_tasks(tasks: Sequence[Task], stages: Mapping[str, Stage], size: int) -> list[Task]:
    """Group the trainings among ``tasks`` into stacks of similar size, in order of priority.

    Args:
        tasks: Tasks of `ablations.execution.jobs.stage_tasks`.
        stages: Task key -> stage.
        size: Maximum size of a stack; at 0 the tasks are returned unchanged.
    """
    if not size:
        return list(tasks)
    alone: list[Task] = []
    groups: dict[tuple[str, ...], list[Task]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: task.priority):
        group = stack_group(stages[task.key])
        (alone if group is None else groups[group]).append(task)
    stacked = []
    for group_tasks in groups.values():
        group_size = ceil(len(group_tasks) / ceil(len(group_tasks) / size))
        stacked += [_stack(group_tasks[i : i + group_size]) for i in range(0, len(group_tasks), group_size)]
    return [*alone, *stacked]


def _stack(members: Sequence[Task]) -> Task:
    """Combine several tasks into one. A failed member is retried alone, with the same executor (`jobs.build_stage`)."""
    first = members[0]
    assert first.after_oom is not None
    stages = tuple(task.arguments[0] for task in members)
    return Task(
        key=f"stack-{content_hash([task.key for task in members])[:20]}",
        title=f"{len(members)} stages at once, the first of them {first.title}",
        function="ablations.execution.jobs:build_stack",
        arguments=(stages, *first.arguments[1:]),
        after_oom=(stages, *first.after_oom[1:]),
        needs=frozenset().union(*(task.needs for task in members)),
        priority=first.priority,
        parts=tuple(members),
    )


def executor(marker: Path) -> str | None:
    """Return the executor that built a stage, as `Executor`'s text without the stack's size; None if it has no marker yet."""
    return STACK_SIZE.sub("", json.loads(marker.read_text()).get(MARK, "")) if marker.is_file() else None


def refuse_mixed(
    cells: Sequence[Cell],
    missing: Iterable[Stage],
    store: Path,
    requested: Executor,
    recorded: Mapping[str, Record] = MappingProxyType({}),
) -> None:
    """Raise InputError if a seed's missing policy optimizations would use another executor than its finished ones.

    Finished ones are stages in ``store``, and those of ``recorded`` (hash -> record), also of other arms, whose stages may be on
    another machine.
    """
    expected = STACK_SIZE.sub("", str(requested))
    missing_keys = {stage.key for stage in missing if stage.name == OPTIMIZATION}
    by_seed: dict[int, set[str]] = defaultdict(set)
    for cell in cells:
        by_seed[cell.seed] |= {stage.key for stage in _optimizations(cell)}
    unfinished = {seed for seed, keys in by_seed.items() if keys & missing_keys}
    begun = [
        (cell.name, cell.seed, stage.path(store))
        for cell in cells
        for stage in _optimizations(cell)
        if cell.seed in unfinished
    ]
    requested_hashes, names = {cell.hash for cell in cells}, {(cell.label, cell.seed) for cell in cells}
    worlds = {(cell.seed, cell.profile.name, cell.world_hash) for cell in cells if cell.seed in unfinished}
    begun += [
        (f"{record.label}/{record.seed}", record.seed, record.folder / OPTIMIZED)
        for key, record in recorded.items()
        if (record.seed, record.profile, record.world_hash) in worlds
        and (key in requested_hashes or (record.label, record.seed) not in names)  # else it is stale
    ]
    for name, seed, folder in begun:
        if (actual := executor(folder / MARKER)) not in (None, expected):
            raise InputError(
                f"seed {seed} was begun with another executor, and all arms of a seed must use the same one",
                got=f"{name} optimized with {_options(actual)}, and {_options(expected)} for the rest",
                fix=f"continue with {_options(actual)}, or use other seeds or another --runs-dir",
            )


def _options(text: str) -> str:
    """Return the options that select an executor, from its text."""
    precision = next((name for name in PRECISIONS if name in text), PRECISIONS[0])
    stack = "--stack 2 or more" if "stacked" in text else "--stack 1"
    return f"{stack} --precision {precision}" + " --deterministic" * ("deterministic" in text)


def _optimizations(cell: Cell) -> Iterator[Stage]:
    return (stage for stage in walk(*cell.stages.values()) if stage.name == OPTIMIZATION)

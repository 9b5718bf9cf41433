"""Turn cells into tasks: one for every distinct missing stage, and one that records each cell.

`build_stage` and `build_stack` run in a worker process; `record_cell`, `copy_cell` and
`add_optional` run in the parent.
"""

from __future__ import annotations

import contextlib
import math
import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ablations.execution.estimate import Estimator
from ablations.execution.launchers.pool import Report, Task
from ablations.execution.stacking import stack_tasks
from ablations.execution.worker import QUIET, stopping
from ablations.failures import Lost
from ablations.stats.family import primary
from ablations.tracking import curves
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import SAMPLES_FILE, Record
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell, collect
from rrpo.pipeline.executor import SINGLE, Executor
from rrpo.pipeline.stages import Context, Stage, materialise, missing_below, walk
from rrpo.stacking.groups import stack_group

SMALLER = 2
"""Micro-batch size, in samples per forward pass, of the retry after a policy optimization ran out of memory."""
CHECKPOINT_SECONDS = "RRPO_CHECKPOINT_SECONDS"
"""Environment variable with the seconds between checkpoints."""
LOG_LIMIT = 20_000
"""Maximum length of one stage's log in a cell's record, in characters; the end is kept."""


def missing_stages(cells: Sequence[Cell], amended: Sequence[Cell], store: Path) -> list[Stage]:
    """Return every distinct stage missing for the records of ``cells`` and the optional results of ``amended``.

    They are in the order of the cells, and inputs come first.
    """
    optional = {cell.hash: cell.optional.values() for cell in amended}
    roots = [stage for cell in cells for stage in (*cell.stages.values(), *optional.pop(cell.hash, ()))]
    return missing_below([*roots, *(stage for stages in optional.values() for stage in stages)], store)


def is_stored(cell: Cell, store: Path) -> bool:
    """Return whether all of a cell's own stages are stored."""
    return not missing_stages([cell], [], store)


def folders(stages: Mapping[str, Stage]) -> list[str]:
    """Return the folders of stages, which are also the keys of the tasks that build them."""
    return [stage.folder for stage in stages.values()]


def cell_key(cell: Cell) -> str:
    """Return the key of the task that records a cell."""
    return f"cell-{cell.hash[:20]}"


def optional_key(cell: Cell, role: str) -> str:
    """Return the key of the task that adds the results of one optional stage to a cell's record."""
    return f"optional-{cell.hash[:20]}-{role}"


def tasks(
    cells: Sequence[Cell],
    amended: Sequence[Cell],
    store: Path,
    device: str,
    tracker: Tracker,
    executor: Executor = SINGLE,
    elsewhere: Mapping[str, Record] = MappingProxyType({}),
) -> list[Task]:
    """Return the task graph that records ``cells`` and adds the optional results of ``amended``. Tasks may need stages that are
    finished, which are not in the graph. A cell in ``elsewhere``, hash -> record by another grid, is copied and needs no stage.

    Trainings run in stacks of as many members as the executor has. Ready tasks are ordered by the first cell that needs them, so
    that seeds complete one after another.
    """
    built = [cell for cell in cells if cell.hash not in elsewhere]
    stages = missing_stages(built, amended, store)
    by_key = {stage.folder: stage for stage in stages}
    needed = {stage.folder for stage in walk(*(stage for cell in built for stage in cell.stages.values()))}
    singly = [replace(task, spare=task.key not in needed) for task in stage_tasks(stages, store, device, executor)]
    graph = stack_tasks(singly, by_key, executor.members)

    def add(
        key: str, title: str, function: str, arguments: tuple[Any, ...], needs: Iterable[str], spare: bool = False
    ) -> None:
        graph.append(
            Task(
                key=key,
                title=title,
                function=f"ablations.execution.jobs:{function}",
                arguments=(*arguments, tracker),
                needs=frozenset(needs),
                priority=(len(graph),),
                here=True,
                spare=spare,
            )
        )

    for cell in cells:
        if record := elsewhere.get(cell.hash):
            add(cell_key(cell), cell.name, "copy_cell", (cell, record), ())
        else:
            add(cell_key(cell), cell.name, "record_cell", (cell, store), folders(cell.stages))
    for cell in amended:
        for role, stage in cell.optional.items():  # one that fails keeps no other from being added
            title, needs = f"{cell.name}, optional results {role}", [cell_key(cell), stage.folder]
            add(optional_key(cell, role), title, "add_optional", (cell, store, role), needs, spare=True)
    return graph


def stage_tasks(stages: Sequence[Stage], store: Path, device: str, executor: Executor = SINGLE) -> list[Task]:
    """Return one task per stage. Among those that are ready, the first in ``stages`` goes first."""
    return [
        Task(
            key=stage.folder,
            title=str(stage),
            function="ablations.execution.jobs:build_stage",
            arguments=(stage, store, device, executor, None),
            after_oom=(stage, store, device, executor, SMALLER),
            needs=frozenset(folders(stage.inputs)),
            priority=(position,),
        )
        for position, stage in enumerate(stages)
    ]


def longest_first(stages: Sequence[Stage], estimator: Estimator) -> list[Stage]:
    """Return the stages sorted by the estimated seconds of the longest chain of stages that begins with each, longest first.

    In ``stages``, inputs come first.
    """
    tail = {stage.key: 0.0 for stage in stages}
    for stage in reversed(stages):  # each stage precedes its inputs
        tail[stage.key] += estimator.seconds(stage) or 1.0
        for child in stage.inputs.values():
            if child.key in tail:
                tail[child.key] = max(tail[child.key], tail[stage.key])
    return sorted(stages, key=lambda stage: -tail[stage.key])


def build_stage(stage: Stage, store: Path, device: str, executor: Executor, micro: int | None, report: Report) -> float:
    """Build one stage with at most ``micro`` samples per forward pass (None: no limit) and return the seconds it took.

    A training is built as a stack of size one if the executor stacks, so that a retry alone uses the same executor as the rest
    of its stack.

    Raises:
        ClaimedError: Another live process is building it.
        Interrupted: This worker was asked to stop.
    """
    if executor.members and stack_group(stage) is not None:
        (result,) = _stacked([stage], store, device, executor, micro, report)
        if isinstance(result, BaseException):
            raise result
    else:
        unstacked = replace(executor, members=0)
        materialise(stage, store, _with_curves(stage, store, _context(device, unstacked, micro, report)))
    return _seconds(stage, store)


def build_stack(
    stages: Sequence[Stage], store: Path, device: str, executor: Executor, micro: int | None, report: Report
) -> list[float | Lost]:
    """Build several stages at once; return each one's share of the seconds, or why it failed.

    Raises:
        Exception: Memory or disk space did not suffice for the whole group.
    """
    results: list[float | Lost] = []
    for stage, result in zip(stages, _stacked(stages, store, device, executor, micro, report), strict=True):
        if isinstance(result, Path):
            results.append(_seconds(stage, store))
            continue
        lost = Lost.of(result)
        if lost.kind in ("oom", "disk") or not isinstance(result, Exception):
            raise result
        with contextlib.suppress(OSError), (store / "logs" / f"{stage.folder}.log").open("a") as log:
            log.writelines(traceback.format_exception(result) if lost.kind not in QUIET else ())
        results.append(lost)
    return results


def _stacked(
    stages: Sequence[Stage], store: Path, device: str, executor: Executor, micro: int | None, report: Report
) -> list[Path | BaseException]:
    from rrpo.stacking.build import build

    context = _context(device, executor, micro, report)
    return build(stages, store, context, own=lambda stage, shared: _with_curves(stage, store, shared))


def checkpoint_seconds() -> float:
    """Return the seconds between checkpoints: the environment's, if it has some. Raise InputError if they are no number."""
    text = os.environ.get(CHECKPOINT_SECONDS, "")
    try:
        seconds = float(text or Context.checkpoint_seconds)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(
            f"{CHECKPOINT_SECONDS} is a number of seconds", got=repr(text), fix="set it to 30, or unset it"
        )
    return seconds


def _context(device: str, executor: Executor, micro: int | None, report: Report) -> Context:
    return Context(
        device=device,
        report=report,
        stop=stopping,
        micro=micro,
        executor=executor,
        wait=False,
        checkpoint_seconds=checkpoint_seconds(),
    )


def _with_curves(stage: Stage, store: Path, context: Context) -> Context:
    """Return the context with an ``on_measures`` that writes live curves to a file, which the parent shows."""
    return replace(context, on_measures=curves.writer(curves.live_file(store, stage.folder)))


def _seconds(stage: Stage, store: Path) -> float:
    """Return the build time of a finished stage and remove its live curves."""
    curves.live_file(store, stage.folder).unlink(missing_ok=True)
    return stage.seconds(store) or 0.0


def record_cell(cell: Cell, store: Path, tracker: Tracker, report: Report) -> Record:
    """Record a cell whose stages are all stored."""
    scalars, files = collect(cell.stages, store)
    seconds = {stage.key: stage.seconds(store) or 0.0 for stage in walk(*cell.stages.values())}
    scalars["seconds"] = sum(seconds.values())
    scalars |= {f"seconds_{role}": seconds[stage.key] for role, stage in cell.stages.items()}
    return tracker.record_cell(cell, scalars, files, log_of(cell, store), primary_outcome(cell, scalars, files))


def copy_cell(cell: Cell, record: Record, tracker: Tracker, report: Report) -> Record:
    """Record a cell of which another grid has a record."""
    return tracker.copy_cell(cell, record, primary().read(record) if cell.policy else math.nan)


def primary_outcome(cell: Cell, scalars: Mapping[str, float], files: Mapping[str, Path]) -> float:
    """Return the primary outcome, read from a cell's files; NaN for a cell without samples."""
    if SAMPLES_FILE not in files:
        return math.nan
    return primary().read(unrecorded(cell, files[SAMPLES_FILE].parent, scalars))


def unrecorded(cell: Cell, folder: Path, scalars: Mapping[str, float] | None = None) -> Record:
    """Return a record of a cell whose artifacts are in ``folder``, without using a tracking store."""
    return Record(
        label=cell.label,
        seed=cell.seed,
        cell_hash=cell.hash,
        arm_hash=cell.arm_hash,
        world_hash=cell.world_hash,
        profile=cell.profile.name,
        find=lambda: folder,
        load=lambda: scalars or {},
    )


def add_optional(cell: Cell, store: Path, role: str, tracker: Tracker, report: Report) -> None:
    """Add the results of one of a recorded cell's optional stages, which must be stored."""
    stage = cell.optional[role]
    scalars, files = collect({role: stage}, store)
    tracker.add_optional(cell, role, scalars | {f"seconds_{role}": stage.seconds(store) or 0.0}, files)


def log_of(cell: Cell, store: Path) -> str:
    """Return the log of one cell: one line per stage, and the output of the stages that were built on this machine."""
    parts = []
    for stage in walk(*cell.stages.values()):
        seconds = stage.seconds(store)
        parts.append(f"{stage.folder} · {stage} · " + ("not built" if seconds is None else f"{seconds:.1f} s"))
        log = store / "logs" / f"{stage.folder}.log"
        text = log.read_text(errors="replace").strip() if log.is_file() else ""
        if text:
            parts.append("\n".join(f"    {line}" for line in text[-LOG_LIMIT:].splitlines()))
    return "\n".join(parts) + "\n"

"""Run a plan: create the store and the invocation's run, run the tasks, and print a table whenever a seed completes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rich.console import Console

from ablations.execution import environment, jobs, launchers
from ablations.execution.estimate import Estimator
from ablations.execution.failures import Lost
from ablations.execution.launchers.pool import Pool
from ablations.execution.plan import Plan
from ablations.execution.plan import make as replan
from ablations.execution.planned import write_plan
from ablations.execution.progress_display import LINES, Display
from ablations.execution.request import Request
from ablations.execution.scheduler import Failure, Scheduler, Task
from ablations.execution.time_left import TimeLeft
from ablations.rendering.sheet import Sheet, show
from ablations.rendering.summary import table
from ablations.stats.contrasts import apply, overall
from ablations.stats.family import primary
from ablations.stats.statistics import t_interval
from ablations.tracking import page, recorder
from ablations.tracking.connection import UnavailableError
from ablations.tracking.curves import Follower
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from rrpo.pipeline.cell import Cell

ShowTable = Callable[[Sheet, Console, str], None]
LOOK = 1.0
"""Seconds between checks for free disk space at the end of a run."""


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended."""

    cells: int
    """Number of requested cells."""
    done: int
    """Number of requested cells that are complete now."""
    failures: dict[str, str]
    """Cell name -> reason."""
    stopped: bool
    """Whether Ctrl-C ended it."""
    table: Sheet | None
    """Results so far; None if there are none."""
    ui_command: str
    """Command that opens MLflow, with the address of the grid's charts."""
    waiting: str = ""
    """What still waits for the tracking store, and why; empty if nothing does."""

    @property
    def status(self) -> int:
        """Exit status."""
        return 130 if self.stopped else int(bool(self.failures))


def run_plan(plan: Plan, estimator: Estimator, console: Console, show_table: ShowTable, mode: str = LINES) -> Outcome:
    """Run the missing cells of a plan; write nothing if none are missing. ``mode`` is a mode of `Display`."""
    request = plan.request
    failures: dict[str, str] = {}
    stopped, waiting = False, ""
    kept_back = {c.name: f"{plan.lost[c.hash]} (earlier; run it again with --retry failed)" for c in plan.kept_back}
    if plan.todo or plan.amended:
        pool = launchers.start(request.launcher, request.workers, request.folder.logs / request.launcher.name)
        recorder.create(request.folder, request.grid, request.declared or request.arms)
        tracker = _start(plan)
        with contextlib.suppress(OSError):  # only `ablations.status` reads it
            write_plan(request.folder, request.grid, request.cells)
        grid_run = GridRun(plan, estimator, console, tracker, show_table, mode)
        try:
            grid_run.run(pool)
        except KeyboardInterrupt:
            stopped = True
        failures = grid_run.failures
        grid_run.close("KILLED" if stopped else "FAILED" if failures else "FINISHED")
        waiting = tracker.waiting()
        try:
            plan = replan(request)
        except UnavailableError:  # fall back on what this invocation recorded itself
            plan = replace(plan, done=plan.done | {r.cell_hash: r for r in grid_run.records})
    found = plan.records
    done = len({cell.hash for cell in request.own} & plan.done.keys())
    shown = table(found, _planned(request.cells)) if found else None
    failures = kept_back | failures
    return Outcome(len(request.own), done, failures, stopped, shown, _how_to_open(request), waiting)


def _how_to_open(request: Request) -> str:
    """Return the command that opens MLflow and the address of the grid's charts."""
    try:
        experiment = Store(request.folder).experiment_id(request.grid)
    except UnavailableError:
        experiment = ""
    return page.how_to_open(request.folder, experiment)


def _start(plan: Plan) -> Tracker:
    request = plan.request
    first = Tracker(request.folder, request.grid, environment.git_state(), environment.describe(request.device))
    params = {"device": request.device, "workers": str(request.workers), "launcher": request.launcher.name}
    params["executor"] = str(request.executor) or "single"
    params |= {"set": "; ".join(request.settings)} if request.settings else {}
    return first.start_invocation(request.cells, params)


def _planned(cells: Sequence[Cell]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.label] = counts.get(cell.label, 0) + 1
    return counts


@dataclass
class GridRun:
    """The scheduler's observer: updates the display, logs curves to MLflow, and prints a table when a seed completes."""

    plan: Plan
    """What to run."""
    estimator: Estimator
    """Updated with the durations of finished stages."""
    console: Console
    """Where to print."""
    tracker: Tracker
    """Records to MLflow."""
    show_table: ShowTable
    """Prints a table."""
    mode: str = LINES
    """Output mode, as in `Display`."""
    failures: dict[str, str] = field(default_factory=dict)
    """Cell name -> reason."""

    def __post_init__(self) -> None:
        request = self.plan.request
        self._cells = {jobs.cell_key(cell): cell for cell in self.plan.todo}
        self._amending = {jobs.optional_key(cell) for cell in self.plan.amended}
        self._owners = {jobs.stage_key(stage): cell for cell in self.plan.todo for stage in cell.stages.values()}
        self._curves = Follower(request.folder.root)
        self._graph = jobs.tasks(
            self.plan.todo,
            self.plan.amended,
            request.folder.root,
            request.device,
            self.tracker,
            self.estimator,
            request.executor,
        )
        stages = {jobs.stage_key(stage): stage for stage in self.plan.stages}
        self._left = TimeLeft(self._graph, stages, self.estimator, request.workers)
        done = self.plan.done.keys()
        self._open = {seed: {c.hash for c in request.cells if c.seed == seed} - done for seed in request.seeds}
        self.records = self.plan.records
        self._arms: list[tuple[str, str, str]] = []
        self._display = Display(
            self.console,
            len(request.own),
            len(request.own) - len(self.plan.todo),
            self._left.__str__,
            mode=self.mode,
            arms=lambda: self._arms,
        )

    def run(self, pool: Pool) -> None:
        """Run all tasks."""
        request = self.plan.request
        with self._display:
            Scheduler(self._graph, pool, request.folder.logs, self, fail_fast=request.fail_fast).run()

    def close(self, status: str) -> None:
        """End the invocation's run. If a full disk holds up records, wait for free space, unless Ctrl-C stopped the run."""
        self.tracker.end_invocation(status)
        why = self.tracker.held_up()
        if why and status == "KILLED":
            self.said(f"NOT WRITTEN, the disk is full: {why}. Failed cells count as missing and will be run again.")
        elif why:
            self.said(f"PAUSED: the disk is full, which holds up {why}. Free some space, and the run ends by itself.")
            while self.tracker.held_up():
                time.sleep(LOOK)

    def started(self, slot: int, task: Task) -> None:
        """Handle the scheduler's event of the same name."""
        self._left.started(task.key)
        self._curves.restart(task.key)
        self._display.started(slot, task)

    def progressed(self, slot: int, task: Task, done: int, total: int) -> None:
        """Handle the scheduler's event of the same name."""
        self._left.progressed(task.key, done, total)
        self._display.progressed(slot, task, done, total)
        if self._curves.due():
            for key in self._left.running.keys() & self._owners.keys():
                if points := self._curves.new(key):
                    self.tracker.show_cell(self._owners[key], points)

    def finished(self, slot: int | None, task: Task, result: Any, seconds: float) -> None:
        """Handle the scheduler's event: update the time left with a stage's duration, or add a cell's record."""
        self._left.ended(task.key, result)
        self._display.finished(slot, task, result, seconds)
        if cell := self._cells.get(task.key):
            self.records.append(result)
            self._arms = self._so_far()
            self._close_cell(cell)

    def retried(self, slot: int | None, task: Task, failure: Failure) -> None:
        """Handle the scheduler's event of the same name."""
        self._left.stopped(task.key)
        self._display.retried(slot, task, failure)

    def said(self, text: str) -> None:
        """Handle the scheduler's event of the same name."""
        self._display.said(text)

    def failed(self, slot: int | None, task: Task, failure: Failure) -> None:
        """Handle the scheduler's event: record the failed cell and its log in MLflow."""
        self._left.ended(task.key)
        self._display.failed(slot, task, failure)
        if task.key in self._amending:
            self.said(
                f"{task.title}: not added ({failure.cause}: {failure.message}); the cell's record is complete without them"
            )
        if cell := self._cells.get(task.key):
            reason = failure.message if failure.cause == task.title else f"{failure.cause}: {failure.message}"
            self.failures[cell.name] = f"{failure.kind}: {reason} (log: {failure.log})"
            log = failure.log.read_text(errors="replace") if failure.log.is_file() else ""
            self.tracker.record_failure(cell, Lost(failure.kind, reason), log)

    def _so_far(self) -> list[tuple[str, str, str]]:
        """Return (arm, n, primary outcome) rows over the recorded seeds, as interim estimates for the live display."""
        if not self._display.live:
            return []
        outcome = primary()
        values = outcome.values(self.records)
        found = {
            arm: t_interval([v for (label, _), v in values.items() if label == arm]) for arm in self.plan.request.arms
        }
        return [
            (arm, str(mean.n), f"{outcome.label} {show(mean, outcome.unit)}") for arm, mean in found.items() if mean.n
        ]

    def _close_cell(self, cell: Cell) -> None:
        """Mark a cell as recorded. If its seed is now complete, log the spread over seeds and print a table of estimates.

        A seed with failed cells, or with cells in another shard, is not complete.
        """
        self._open[cell.seed].discard(cell.hash)
        if self._open[cell.seed]:
            return
        complete = {seed for seed, still in self._open.items() if not still}
        found = [record for record in self.records if record.seed in complete]
        (contrast,) = overall().values()
        pairs = apply(contrast, primary().values(found), sorted(complete))
        pairs = pairs[np.isfinite(pairs)]
        if len(pairs) > 2:
            self.tracker.note_spread(float(pairs.std(ddof=1)), len(pairs))
        if any(self._open.values()):
            interim = table(found, _planned([c for c in self.plan.request.cells if c.seed in complete]))
            self.show_table(interim, self.console, f"Interim: seed {cell.seed} is complete (estimates only)")

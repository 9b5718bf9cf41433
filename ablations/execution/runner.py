"""Run a plan: create the store and the invocation's run, run the tasks, and print a table whenever a seed completes."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from ablations.commands import rich_table, show_table
from ablations.execution import environment, jobs, launchers
from ablations.execution.estimate import Estimator
from ablations.execution.launchers.pool import Pool
from ablations.execution.plan import Plan
from ablations.execution.plan import make as replan
from ablations.execution.planned import write_plan
from ablations.execution.progress_display import JSON, LINES, Display
from ablations.execution.request import Request
from ablations.execution.scheduler import Scheduler, Task
from ablations.execution.time_left import TimeLeft
from ablations.failures import Failure
from ablations.rendering.sheet import Sheet
from ablations.rendering.summary import ARM, N, table
from ablations.stats.family import primary
from ablations.stats.statistics import t_interval
from ablations.tracking import page, recorder
from ablations.tracking.connection import UnavailableError
from ablations.tracking.curves import Follower
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.source_version import git_state
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell

LOOK = 1.0
"""Seconds between checks for free disk space at the end of a run."""


@dataclass(frozen=True)
class Ending:
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
        return 130 if self.stopped else int(self.done < self.cells)


def run_plan(plan: Plan, estimator: Estimator, console: Console, mode: str = LINES) -> Ending:
    """Run the missing cells of a plan; write nothing if none are missing. ``mode`` is a mode of `Display`."""
    request = plan.request
    failures = {c.name: f"{plan.lost[c.hash]} (earlier; run it again with --retry failed)" for c in plan.kept_back}
    stopped, waiting = False, ""
    if plan.todo or plan.amended:
        launching = request.launching
        pool = launchers.start(launching, request.workers, request.folder.logs / launching.launcher)
        recorder.create(request.folder, request.grid, request.declared or request.arms)
        tracker = _start_tracker(plan)
        with contextlib.suppress(OSError):  # only `ablations.status` reads it
            write_plan(request.folder, request.grid, request.cells)
        grid_run = GridRun(plan, estimator, console, tracker, mode)
        try:
            grid_run.run(pool)
        except KeyboardInterrupt:
            stopped = True
        except InputError:  # a cluster refused the first job
            grid_run.close("FAILED")
            raise
        lost = {cell.name: grid_run.failures[cell.name] for cell in plan.todo if cell.name in grid_run.failures}
        grid_run.close("KILLED" if stopped else "FAILED" if lost else "FINISHED")
        failures |= lost
        waiting = tracker.waiting()
        try:
            plan = replan(request)
        except UnavailableError:  # fall back on what this invocation recorded itself
            plan = replace(plan, done=plan.done | {record.cell_hash: record for record in grid_run.records})
    done = len({cell.hash for cell in request.own} & plan.done.keys())
    summary = None
    if plan.records:
        try:
            summary = table(plan.records, _planned(request.cells))
        except Exception as error:
            if mode != JSON:  # there, the table of the last event is null
                console.print(_no_table(error), markup=False)
    return Ending(len(request.own), done, failures, stopped, summary, _how_to_open(request), waiting)


def _no_table(error: Exception) -> str:
    """Return the message for a table that an outcome, or the tracking store, keeps from being made. No cell is lost by it."""
    return f"No table could be made: {type(error).__name__}: {error}"


def _how_to_open(request: Request) -> str:
    """Return the command that opens MLflow and the address of the grid's charts."""
    try:
        experiment = Store(request.folder).experiment_id(request.grid)
    except UnavailableError:
        experiment = ""
    return page.how_to_open(request.folder, experiment)


def _start_tracker(plan: Plan) -> Tracker:
    request = plan.request
    tracker = Tracker(request.folder, request.grid, git_state(), environment.describe(request.device))
    params = {"device": request.device, "workers": str(request.workers), "launcher": request.launching.launcher}
    params["executor"] = str(request.executor) or "single"
    params |= {"set": "; ".join(request.settings)} if request.settings else {}
    return tracker.start_invocation(request.cells, params)


def _planned(cells: Sequence[Cell]) -> Counter[str]:
    """Return the number of planned cells of each arm."""
    return Counter(cell.label for cell in cells)


class GridRun(Display):
    """Runs a plan's tasks: shows them, logs curves and failures to MLflow, and prints a table when a seed completes."""

    def __init__(self, plan: Plan, estimator: Estimator, console: Console, tracker: Tracker, mode: str = LINES) -> None:
        request = plan.request
        self.plan, self.tracker = plan, tracker
        self.records = plan.records
        """Records of the requested cells so far."""
        self._owners = {stage.folder: cell for cell in plan.todo for stage in cell.stages.values()}
        self._curves = Follower(request.folder.root)
        self._graph = jobs.tasks(
            plan.todo, plan.amended, request.folder.root, request.device, tracker, request.executor, plan.elsewhere
        )
        self._parts = {task.key: [part.key for part in task.parts] for task in self._graph if task.parts}
        self._told_no_table = False
        stages = {stage.folder: stage for stage in plan.stages}
        left = TimeLeft(self._graph, stages, estimator, request.workers)
        done = sum(cell.hash in plan.done for cell in request.own)
        super().__init__(console, len(request.own), done, left, mode=mode)

    def run(self, pool: Pool) -> None:
        """Run all tasks."""
        request = self.plan.request
        with self:
            Scheduler(self._graph, pool, request.folder.logs, self, fail_fast=request.fail_fast).run()

    def close(self, status: str) -> None:
        """End the invocation's run. If a full disk holds up records, wait for free space, unless Ctrl-C stopped the run."""
        self.tracker.end_invocation(status)
        why = self.tracker.held_up()
        if why and status == "KILLED":
            self.message(f"NOT WRITTEN, the disk is full: {why}. Failed cells count as missing and will be run again.")
        elif why:
            self.message(
                f"PAUSED: the disk is full, which holds up {why}. Free some space, and the run ends by itself."
            )
            while self.tracker.held_up():
                time.sleep(LOOK)

    def progressed(self, task: Task, done: int, total: int) -> None:
        """Handle the scheduler's event of the same name."""
        super().progressed(task, done, total)
        if self._curves.due():
            running = {part for key in self.left.running for part in self._parts.get(key, [key])}
            for key in running & self._owners.keys():
                if points := self._curves.new(key):
                    self.tracker.show_cell(self._owners[key], points)

    def finished(self, task: Task, result: Any, seconds: float) -> None:
        """Handle the scheduler's event: add a cell's record."""
        super().finished(task, result, seconds)
        if isinstance(result, Record):
            self.records.append(result)
            try:
                if self.live:
                    self.so_far = rich_table(self._so_far(), box=None)
                self._show_interim(result.seed)
            except Exception as error:  # the cells go on
                if not self._told_no_table:
                    self.message(_no_table(error))
                self._told_no_table = True

    def failed(self, task: Task, failure: Failure) -> None:
        """Handle the scheduler's event: record the failed cell and its log in MLflow."""
        super().failed(task, failure)
        if self._counts(task):
            log = failure.log.read_text(errors="replace") if failure.log.is_file() else ""
            self.tracker.record_failure(task.arguments[0], failure, log)
        elif task.here and task.arguments[0].hash in {record.cell_hash for record in self.records}:
            self.message(f"{task.title}: not added ({failure.reason}); the cell's record is complete without them")

    def _so_far(self) -> Sheet:
        """Return the primary outcome of each arm over the recorded seeds: interim estimates for the live display."""
        values = primary().values(self.records)
        by_arm = {
            arm: [value for (label, _), value in values.items() if label == arm] for arm in self.plan.request.arms
        }
        rows = tuple((arm, float(len(found)), t_interval(found)) for arm, found in by_arm.items() if found)
        columns = (ARM, N, primary().as_column())
        return Sheet("so_far", "So far", columns, rows)

    def _show_interim(self, seed: int) -> None:
        """Print a table of estimates if the seed is complete now, and others are not.

        A seed with failed cells, or with cells in another shard, is not complete.
        """
        recorded = {record.cell_hash for record in self.records}
        open_seeds = {cell.seed for cell in self.plan.request.cells if cell.hash not in recorded}
        if self.mode != LINES or seed in open_seeds or not open_seeds:
            return
        planned = _planned([cell for cell in self.plan.request.cells if cell.seed not in open_seeds])
        interim = table([record for record in self.records if record.seed not in open_seeds], planned)
        show_table(interim, self.console, f"Interim: seed {seed} is complete (estimates only)")

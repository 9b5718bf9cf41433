"""Run a search on a worker pool: first the stages shared by all trials, then the trials. Display and record each trial."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablations.execution.estimate import Estimator, duration
from ablations.execution.jobs import longest_first, stage_key, stage_tasks
from ablations.execution.launchers.pool import Pool, Task
from ablations.execution.progress_display import Display
from ablations.execution.scheduler import Scheduler
from ablations.execution.time_left import TimeLeft
from ablations.failures import Failure
from rrpo.pipeline.stages import Stage
from studies.detectable import own
from studies.mlflow_bridge import Bridge
from studies.recovery import lost_trials, recover
from studies.results import final_values, pareto_front, ranked
from studies.search import REASON, Search, counted

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy

UPDATE = 5.0
"""Seconds between two updates from the study while trials run."""


class Collector(Display):
    """Display that keeps the reasons of the tasks that failed themselves, not of those that need them."""

    def failed(self, task: Task, failure: Failure) -> None:
        """Handle the scheduler's event."""
        super().failed(task, failure)
        if failure.cause != task.title:
            del self.failures[task.title]


class SearchRun(Collector):
    """Observer of the scheduler: shows each trial's value, the best so far, the Pareto front, the time left; logs to MLflow."""

    def __init__(self, search: Search, study: OptunaStudy, bridge: Bridge, console: Console, workers: int) -> None:
        self._status = ""
        estimator = Estimator(search.spec.store, search.spec.device)
        super().__init__(console, search.trials, 0, TimeLeft([], {}, estimator, workers), "trial")
        self.search = search
        self.study = study
        self.bridge = bridge
        self.workers = workers
        self.done = self._finished()
        seconds, unknown = estimator.total(own(search))
        self._expected_seconds = None if unknown else seconds
        self._updated = 0.0

    def run(self, pool: Pool, stages: Sequence[Stage]) -> None:
        """Run until the study has the requested number of trials.

        Raises KeyboardInterrupt when stopped; finished trials are kept.
        """
        spec = self.search.spec
        with self.search.lock():
            recover(self.study, self.search.folder)
        remaining = self.search.trials - len(counted(self.study))
        ordered = longest_first(stages, Estimator(spec.store, spec.device))
        graph = stage_tasks(ordered, spec.store, spec.device)
        graph += [
            Task(
                key=f"trial-{index}",
                title="trial",
                function="studies.search:one_trial",
                arguments=(self.search,),
                needs=frozenset(stage_key(stage) for stage in stages),
                priority=(index,),
            )
            for index in range(remaining)
        ]
        self._update()
        try:
            with self:
                Scheduler(graph, pool, self.search.folder / "logs", self).run()
        finally:
            with self.search.lock():
                recover(self.study, self.search.folder)
            self.bridge.write(self.study.get_trials(deepcopy=False))

    def remaining(self) -> str:
        """Return the time left and the best value so far."""
        return self._status

    def progressed(self, task: Task, done: int, total: int) -> None:
        """Handle the scheduler's event, and update from the study, which other commands may have changed."""
        super().progressed(task, done, total)
        if time.monotonic() - self._updated > UPDATE:
            self._update()

    def finished(self, task: Task, result: Any, seconds: float) -> None:
        """Handle the scheduler's event: ``result`` is a trial's number, or None if other commands ran the last trials."""
        if not task.key.startswith("trial-"):
            super().finished(task, result, seconds)
            return
        self._update()
        if result is None:
            claimed = Failure("claimed", "other commands ran the last trials", self.search.folder, task.title)
            self._free(task)
            super().retried(replace(task, key="elsewhere"), claimed)
            return
        self.done = self._finished() - 1  # the display adds this one itself
        super().finished(replace(task, title=self._describe(int(result))), result, seconds)

    def failed(self, task: Task, failure: Failure) -> None:
        """Handle the scheduler's event; a failed stage is not repeated for every trial that needs it."""
        if failure.cause == task.title or not task.key.startswith("trial-"):
            super().failed(task, failure)

    def _update(self) -> None:
        """Update the estimate and the best value, including other commands' trials, and write finished trials to MLflow."""
        self._updated = time.monotonic()
        self.bridge.write(self.study.get_trials(deepcopy=False))
        durations = [t.duration.total_seconds() for t in counted(self.study) if t.duration is not None and t.values]
        mean = statistics.fmean(durations) if durations else self._expected_seconds
        remaining = max(0, self.search.trials - self._finished())
        time_left = "unknown" if mean is None else f"about {duration(remaining * mean / self.workers)}"
        self._status = f"{time_left} · {self._best_so_far()}"

    def _finished(self) -> int:
        return sum(trial.state.is_finished() for trial in counted(self.study))

    def _describe(self, number: int) -> str:
        trials = self.study.get_trials(deepcopy=False)
        trial = trials[number]
        if number in lost_trials(trials):
            return f"number {number} was lost; its point is queued again"
        values = final_values(trial)
        if not values:
            return f"number {number} {trial.state.name.lower()}" + f": {trial.user_attrs.get(REASON, '')}".rstrip(": ")
        by_objective = zip(self.search.spec.objectives, values, strict=True)
        return f"number {number}: " + ", ".join(f"{name} {value:+.4f}" for name, value in by_objective)

    def _best_so_far(self) -> str:
        trials = ranked(self.study, self.search)
        if not trials:
            return "no value yet"
        if len(self.search.directions) > 1:
            return f"front of {len(pareto_front(self.study))}"
        return f"best {trials[0].values[0]:+.4f} (number {trials[0].number})"

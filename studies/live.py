"""Run the trials of a search on a worker pool; display and record each of them."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import replace
from typing import Any

from optuna.study import Study as OptunaStudy
from rich.console import Console

from ablations.execution import launchers
from ablations.execution.estimate import Estimator, duration
from ablations.execution.launchers.pool import Task
from ablations.execution.progress_display import Display
from ablations.execution.scheduler import Scheduler
from ablations.execution.time_left import TimeLeft
from studies.mlflow_bridge import Bridge
from studies.results import final_values, pareto_front, ranked
from studies.search import REASON, Search, counted


class SearchRun(Display):
    """Observer of the scheduler: shows each trial's value, the best so far and the time left; writes trials to MLflow."""

    def __init__(self, search: Search, study: OptunaStudy, bridge: Bridge, console: Console) -> None:
        self.search = search
        self.study = study
        self.bridge = bridge
        self._status = ""
        left = TimeLeft([], {}, Estimator(search.spec.store), search.workers)
        super().__init__(console, search.trials, 0, left, "trial")
        self.done = self._update()

    def run(self) -> None:
        """Run until the study has the requested number of trials.

        Raises KeyboardInterrupt when stopped; finished trials are kept.
        """
        search = self.search
        tasks = [
            Task(key=f"trial-{index}", title="trial", function="studies.search:one_trial", arguments=(search,))
            for index in range(search.trials - len(counted(self.study)))
        ]
        pool = launchers.start(search.launching, search.workers, search.folder / "launcher")
        with self:
            Scheduler(tasks, pool, search.folder / "logs", self).run()

    def remaining(self) -> str:
        """Return the time left and the best value so far."""
        return self._status

    def finished(self, task: Task, result: Any, seconds: float) -> None:
        """Handle the scheduler's event: ``result`` is a trial's number, or None if other commands ran the last trials."""
        title = "run by another command" if result is None else self._describe(int(result))
        super().finished(replace(task, title=title), result, seconds)
        with suppress(OSError):  # the disk is full: a later call writes the trial
            self.bridge.write()

    def _done_with(self, task: Task) -> int:
        return self._update()

    def _update(self) -> int:
        """Update the time left and the best value; return the number of finished trials. Other commands' trials count too."""
        finished = [trial for trial in counted(self.study) if trial.state.is_finished()]
        durations = [trial.duration.total_seconds() for trial in finished if trial.duration and trial.values]
        left = max(0, self.search.trials - len(finished)) / self.search.workers
        time_left = f"about {duration(left * statistics.fmean(durations))}" if durations else "unknown"
        trials = ranked(self.study)
        best = f"best {trials[0].values[0]:+.4f} (number {trials[0].number})" if trials else "no value yet"
        if len(self.search.directions) > 1:
            best = f"front of {len(pareto_front(self.study))}"
        self._status = f"{time_left} · {best}"
        return len(finished)

    def _describe(self, number: int) -> str:
        trial = self.study.get_trials(deepcopy=False)[number]
        values = final_values(trial)
        if not values:
            return f"number {number} {trial.state.name.lower()}: {trial.user_attrs.get(REASON, '')}".rstrip(": ")
        by_objective = zip(self.search.spec.objectives, values, strict=True)
        return f"number {number}: " + ", ".join(f"{name} {value:+.4f}" for name, value in by_objective)

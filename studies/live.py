"""Run a search on a pool: what all trials share first, then trial after trial; the terminal and MLflow hear of each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablations.execution.estimate import Estimator, duration
from ablations.execution.jobs import longest_first, stage_key, stage_tasks
from ablations.execution.launchers.pool import Pool, Task
from ablations.execution.progress_display import Display
from ablations.execution.scheduler import Failure, Scheduler
from rrpo.pipeline.stages import Stage
from studies.detectable import own
from studies.mlflow_bridge import Bridge
from studies.recovery import lost_trials, recover
from studies.results import front, ranked, told
from studies.search import REASON, Search, counted

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy

LAST = (1.0,)
"""Priority of trials: after every stage that is shared."""
LOOK = 5.0
"""Seconds between two looks at the study while trials run."""


@dataclass
class SearchRun:
    """The scheduler's observer: shows every trial's value, the best so far, the front and the time left; feeds MLflow."""

    search: Search
    """The search."""
    study: OptunaStudy
    """Its study."""
    bridge: Bridge
    """Writes MLflow."""
    console: Console
    """Where to print."""
    workers: int
    """Trials at the same time."""
    failures: dict[str, str] = field(default_factory=dict)
    """Title of what failed -> reason."""

    def __post_init__(self) -> None:
        estimator = Estimator(self.search.question.store, self.search.question.device)
        seconds, unknown = estimator.total(own(self.search))
        self._guess = None if unknown else seconds
        self._looked = 0.0
        self._left = ""
        self._display = Display(self.console, self.search.trials, self._done(), self.remaining, "trial")

    def run(self, pool: Pool, once: Sequence[Stage]) -> None:
        """Run to the wanted number of trials. Raises KeyboardInterrupt when it was stopped; finished trials are kept."""
        question = self.search.question
        with self.search.lock():
            recover(self.study, self.search.folder)
        left = self.search.trials - len(counted(self.study))
        ways = longest_first(once, Estimator(question.store, question.device))
        graph = stage_tasks(once, question.store, question.device, {key: (0.0, *way) for key, way in ways.items()})
        graph += [
            Task(
                key=f"trial-{place}",
                title="trial",
                function="studies.search:one_trial",
                arguments=(self.search,),
                needs=frozenset(stage_key(stage) for stage in once),
                priority=(*LAST, place),
            )
            for place in range(left)
        ]
        self._look()
        try:
            with self._display:
                Scheduler(graph, pool, self.search.folder / "logs", self).run()
        finally:
            with self.search.lock():
                recover(self.study, self.search.folder)
            self.bridge.write(self.study.get_trials(deepcopy=False))

    def remaining(self) -> str:
        """The time left, and how it stands, in words."""
        return self._left

    def started(self, slot: int, task: Task) -> None:
        """Scheduler's event."""
        self._display.started(slot, task)

    def progressed(self, slot: int, task: Task, done: int, total: int) -> None:
        """Scheduler's event; also the time to hear of other commands' trials."""
        self._display.progressed(slot, task, done, total)
        if time.monotonic() - self._looked > LOOK:
            self._look()

    def finished(self, slot: int | None, task: Task, result: Any, seconds: float) -> None:
        """Scheduler's event: a stage, or a trial with its number."""
        if not task.key.startswith("trial-"):
            self._display.finished(slot, task, result, seconds)
            return
        self._look()
        if result is None:
            said = Failure("other commands ran the last trials", self.search.folder, task.title, "claimed")
            self._display.retried(slot, replace(task, key="elsewhere"), said)
            return
        self._display.done = self._done() - 1  # which the display counts itself
        self._display.finished(slot, replace(task, title=self._said(int(result))), result, seconds)

    def retried(self, slot: int | None, task: Task, failure: Failure) -> None:
        """Scheduler's event."""
        self._display.retried(slot, task, failure)

    def failed(self, slot: int | None, task: Task, failure: Failure) -> None:
        """Scheduler's event."""
        if failure.cause == task.title:
            self.failures[task.title] = f"{failure.kind}: {failure.message} (log: {failure.log})"
        if failure.cause == task.title or not task.key.startswith("trial-"):
            self._display.failed(slot, task, failure)

    def said(self, text: str) -> None:
        """Scheduler's event."""
        self._display.said(text)

    def _look(self) -> None:
        """See how the study stands, other commands' trials included, and write what is finished to MLflow."""
        self._looked = time.monotonic()
        self.bridge.write(self.study.get_trials(deepcopy=False))
        took = [t.duration.total_seconds() for t in counted(self.study) if t.duration is not None and t.values]
        each = statistics.fmean(took) if took else self._guess
        left = max(0, self.search.trials - self._done())
        time_left = "unknown" if each is None else f"about {duration(left * each / self.workers)}"
        self._left = f"{time_left} · {self._standing()}"

    def _done(self) -> int:
        return sum(trial.state.is_finished() for trial in counted(self.study))

    def _said(self, number: int) -> str:
        trials = self.study.get_trials(deepcopy=False)
        trial = trials[number]
        if number in lost_trials(trials):
            return f"number {number} was lost, its point is queued again"
        values = told(trial)
        if not values:
            return f"number {number} {trial.state.name.lower()}" + f": {trial.user_attrs.get(REASON, '')}".rstrip(": ")
        named = zip(self.search.question.objectives, values, strict=True)
        return f"number {number}: " + ", ".join(f"{name} {value:+.4f}" for name, value in named)

    def _standing(self) -> str:
        found = ranked(self.study, self.search)
        if not found:
            return "no value yet"
        if len(self.search.directions) > 1:
            return f"front of {len(front(self.study))}"
        return f"best {found[0].values[0]:+.4f} (number {found[0].number})"

"""Run trials: each worker process asks for a point, measures it seed by seed, and tells; the parent only watches.

Workers of several processes or hosts share one study. A worker that dies loses at most its trial, which is queued again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ablations.worker import ENVIRONMENT
from studies.catalogue import STUDIES, Study, tune_arm
from studies.samplers import STARTUP, Keyed
from studies.storage import REASON, claim, folder_of, lost_trials, open_storage, recover
from studies.trial import OBJECTIVES, Question, constraints, mean, measure

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial, Trial

OUTCOMES, STAGES = "outcomes", "stages"
PRUNERS = ("median", "hyperband", "wilcoxon", "none")
POLL = 1.0
"""Seconds between two looks of the parent."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """One command's search; picklable, since every worker gets it."""

    study: str
    """A key of `STUDIES`, or ``tune-arm``."""
    name: str
    """The study's name in its storage."""
    question: Question
    """What a trial measures."""
    trials: int
    """Trials wanted in all; those that died with their worker do not count."""
    sampler: str = "tpe"
    """One of `studies.samplers.SAMPLERS`."""
    pruner: str = "median"
    """One of `PRUNERS`."""
    storage: str | None = None
    """A database's URL; None for the journal file."""
    arm: str = ""
    """Of ``tune-arm``."""
    seed: int = 0
    """Of the sampler."""

    @property
    def definition(self) -> Study:
        """The named study."""
        return tune_arm(self.arm) if self.study == "tune-arm" else STUDIES[self.study]()

    @property
    def folder(self) -> Path:
        """Where the study's own files lie."""
        return folder_of(self.question.store, self.name)

    @property
    def directions(self) -> list[str]:
        """Of the objectives."""
        return [OBJECTIVES[name].direction for name in self.question.objectives]

    def open(self) -> OptunaStudy:
        """The existing study with this search's sampler and pruner."""
        import optuna

        storage = open_storage(self.storage, self.folder)
        return optuna.load_study(
            study_name=self.name,
            storage=storage,
            sampler=Keyed(self.sampler, self.seed),
            pruner=make_pruner(self.pruner),
        )

    def lock(self) -> FileLock:
        """Held between asking for a trial and writing down its owner, and while the dead are recovered."""
        return FileLock(self.folder / "ask.lock")


def make_pruner(name: str) -> BasePruner:
    """Median and Hyperband look at the steps of the first seed, Wilcoxon at whole seeds (with few seeds it seldom prunes)."""
    from optuna import pruners

    match name:
        case "median":
            return pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=20)
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=20)
        case "wilcoxon":
            return pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=2)
    return pruners.NopPruner()


def work(search: Search) -> None:
    """The body of a worker process: trials until there are enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    study, definition = search.open(), search.definition
    while (trial := _next(search, study, definition)) is not None:
        run_trial(search, study, definition, trial)


def _next(search: Search, study: OptunaStudy, definition: Study) -> Trial | None:
    with search.lock():
        recover(study)
        if len(counted(study)) >= search.trials:
            return None
        trial = study.ask(dict(definition.space))
        claim(trial)
        return trial


def counted(study: OptunaStudy) -> list[FrozenTrial]:
    """The trials that count: run or running, not queued, not lost with their worker."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    lost = lost_trials(trials)
    return [t for t in trials if t.state != TrialState.WAITING and t.number not in lost]


def run_trial(search: Search, study: OptunaStudy, definition: Study, trial: Trial) -> None:
    """Measure one point and tell the study: its values, that it was pruned, or why it failed."""
    import optuna
    from optuna.trial import TrialState

    arm = definition.arm(trial.params)
    question = search.question
    outcomes: dict[int, dict[str, float]] = {}
    trial.set_user_attr(STAGES, [stage.key[:20] for seed in question.seeds for stage in question.stages(arm, seed)])
    try:
        for place, seed in enumerate(question.seeds):
            outcomes[seed] = measure(question, arm, seed, _watch(search, trial, place))
            trial.set_user_attr(OUTCOMES, outcomes)
            if search.pruner == "wilcoxon" and len(question.objectives) == 1:
                trial.report(outcomes[seed][question.objectives[0]], seed)
                if trial.should_prune():
                    raise optuna.TrialPruned()
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return
    except Exception as error:  # the search goes on; what happened stays with the trial
        trial.set_user_attr(REASON, f"{type(error).__name__}: {error}")
        study.tell(trial, state=TrialState.FAIL)
        return
    for name, value in constraints(outcomes).items():
        trial.set_constraint(name, value)
    study.tell(trial, [mean(outcomes, name) for name in question.objectives])


def _watch(search: Search, trial: Trial, place: int) -> Callable[[int, Mapping[str, float]], None]:
    """Reports the looks of the first seed's optimisation to a pruner that goes by steps."""
    import optuna

    by_step = search.pruner in ("median", "hyperband") and len(search.question.objectives) == 1
    if not by_step or place or not search.question.policy:
        return lambda step, measures: None
    seen: list[float] = []

    def watch(step: int, measures: Mapping[str, float]) -> None:
        if "val_logprob" not in measures:
            return
        seen.append(measures["val_logprob"])
        recent = seen[-3:]
        trial.report(sum(recent) / len(recent), step)
        if trial.should_prune():
            raise optuna.TrialPruned()

    return watch


@dataclass
class Pool:
    """The worker processes of one command."""

    search: Search
    """What they run."""
    workers: int
    """How many."""
    _processes: list[Any] = field(default_factory=list)
    _deaths: int = 0

    def start(self) -> None:
        """Start all workers."""
        for _ in range(self.workers):
            self._spawn()

    def tend(self) -> bool:
        """Replace workers that died (not those that found nothing left to do); whether any still works."""
        for process in [p for p in self._processes if not p.is_alive()]:
            self._processes.remove(process)
            if process.exitcode:
                self._deaths += 1
                if self._deaths > 3 * self.workers:
                    raise RuntimeError(
                        f"workers keep dying (exit code {process.exitcode}); see {self.search.folder}/worker.log"
                    )
                self._spawn()
        return bool(self._processes)

    def stop(self) -> None:
        """End all workers; their trials are found to be dead by the next start."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def _spawn(self) -> None:
        before = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)
        try:
            process = multiprocessing.get_context("spawn").Process(target=_logged, args=(self.search,), daemon=True)
            process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        self._processes.append(process)


def _logged(search: Search) -> None:
    """A worker whose output goes to the study's log."""
    import torch

    torch.set_num_threads(1)
    with (search.folder / "worker.log").open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        work(search)


def run(search: Search, workers: int, look: Callable[[list[FrozenTrial]], None]) -> None:
    """Run the search to its number of trials; ``look`` hears of all trials, often, in this process."""
    study = search.open()
    with search.lock():
        recover(study)
    pool = Pool(search, workers)
    if len(counted(study)) < search.trials:
        pool.start()
    try:
        while pool.tend():
            look(study.get_trials(deepcopy=False))
            time.sleep(POLL)
    finally:
        pool.stop()
        with suppress(Exception):
            look(study.get_trials(deepcopy=False))

"""A search, and one trial of it in a worker process: ask for a point, measure it seed by seed, tell the result.

Any number of workers can share a study.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from ablations.execution.building import Builder
from ablations.execution.jobs import SMALLER
from ablations.execution.launchers import Launching
from ablations.failures import kind_of
from ablations.tracking.runs_folder import RunsFolder
from studies.catalogue import Study, study_of
from studies.pruning import make_pruner, pruning_callback
from studies.recovery import alive, claim, lost_trials, queue_again, recover
from studies.samplers import SAMPLER, Keyed
from studies.storage import folder_of, open_storage, shown
from studies.trial import OBJECTIVES, TrialSpec, mean, measure

OUTCOMES, STAGES, REASON = "outcomes", "stages", "reason"
"""User attributes of a trial: outcomes by seed, folders of its stages by seed, and the reason of a failure."""
Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Search:
    """The checked options of one command. They are sent to every worker, so they must be picklable."""

    study: str
    """A key of `STUDIES`, or ``tune-arm``."""
    name: str
    """The study's name in its storage."""
    spec: TrialSpec
    """What a trial measures."""
    trials: int
    """Total number of trials; trials that were lost with their worker do not count."""
    sampler: str = "tpe"
    """A key of `studies.samplers.SAMPLERS`."""
    pruner: str = "median"
    """One of `studies.pruning.PRUNERS`."""
    storage: str | None = None
    """URL of a database; None for the journal file."""
    arm: str = ""
    """The arm of ``tune-arm``."""
    ranges: tuple[tuple[str, float, float], ...] = ()
    """(hyperparameter, low, high) of each range that replaces the study's own."""
    warm_start: str = ""
    """Study whose best points are tried first; empty for none."""
    verify: int = 0
    """Number of fresh seeds for the comparison of the best trial with its baseline; 0 for no comparison."""
    against: str = ""
    """Study whose best trial is the baseline; empty for the default values."""
    export_arm: str = ""
    """Name under which the best trial is exported as an arm; empty for no export."""
    workers: int = 1
    """Number of trials that run at the same time."""
    launching: Launching = field(default_factory=Launching)
    """Where trials run."""

    @property
    def definition(self) -> Study:
        """The definition of the study."""
        return study_of(self.study, self.arm, self.ranges, self.spec.profile.optimize)

    @property
    def folder(self) -> Path:
        """Folder of the study's files."""
        return folder_of(self.spec.store, self.name)

    @property
    def runs(self) -> RunsFolder:
        """The runs folder."""
        return RunsFolder(self.spec.store)

    @property
    def address(self) -> str:
        """The storage, for display and for Optuna's dashboard: a URL without its password, or the journal file."""
        return shown(self.storage) if self.storage else str(self.folder / "journal.log")

    @property
    def directions(self) -> list[str]:
        """Optuna's directions, one per objective."""
        return [OBJECTIVES[name].direction for name in self.spec.objectives]

    def open(self) -> OptunaStudy:
        """Return the existing Optuna study, with this search's sampler and pruner."""
        return optuna.load_study(
            study_name=self.name,
            storage=open_storage(self.storage, self.folder),
            sampler=Keyed(self.sampler),
            pruner=make_pruner(self.pruner, self.spec),
        )

    def builder(self, console: Console) -> Builder:
        """Return the builder of stages outside trials: those that all trials share, and those of fresh seeds."""
        return Builder(self.runs, self.spec.device, self.workers, console, self.launching)

    def lock(self) -> FileLock:
        """Return the lock that is held between asking for a trial and recording its owner, and during recovery."""
        return FileLock(self.folder / "ask.lock")

    @property
    def exclusive(self) -> bool:
        """Whether `lock` excludes all processes of the study: those that use a journal file share its folder."""
        return self.storage is None


_opened: dict[str, OptunaStudy] = {}
"""Cache of this process's studies by name, so that a worker reads the journal only once."""


def one_trial(search: Search, report: Report) -> int | None:
    """Run one more trial and return its number; return None if the study has enough trials. This is a worker's task.

    Raises errors that a retry can fix (a full disk, a request to stop), after queuing the point again.
    """
    if search.name not in _opened:
        _opened[search.name] = search.open()
    study = _opened[search.name]
    trial = ask(search, study)
    if trial is None:
        return None
    with alive(trial):
        run_trial(search, study, trial, report)
    return trial.number


def ask(search: Search, study: OptunaStudy) -> Trial | None:
    """Return the next trial, claimed by this process; None if the study has enough trials."""
    with search.lock():
        recover(study, exclusive=search.exclusive)
        if len(counted(study)) >= search.trials:
            return None
        trial = study.ask(dict(search.definition.space))
        claim(trial)
        if SAMPLER not in trial.user_attrs:
            trial.set_user_attr(SAMPLER, search.sampler)
    return trial


def counted(study: OptunaStudy) -> list[FrozenTrial]:
    """Return the trials that count: finished or running, but neither queued nor lost with their worker."""
    trials = study.get_trials(deepcopy=False)
    lost = lost_trials(trials)
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in lost]


def run_trial(search: Search, study: OptunaStudy, trial: Trial, report: Report = lambda done, total: None) -> None:
    """Measure one point and tell the study its values, that it was pruned, or why it failed.

    Raises errors that a retry can fix. A trial that another process took over, because this one was suspended for too long, is
    left unchanged.
    """
    try:
        values = _measure_seeds(search, trial, report)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        _remove_checkpoints(search, trial)
    except UpdateFinishedTrialError:
        print(f"trial {trial.number} was taken over by another process while this one did not respond")
    except Exception as error:
        if kind_of(error) in ("disk", "stopped"):
            queue_again(study, study.get_trials(deepcopy=False)[trial.number], cost=0)
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        trial.set_user_attr(REASON, f"{type(error).__name__}: {error}")  # the search continues
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        print(f"trial {trial.number} failed: {type(error).__name__}: {error}")
    else:
        study.tell(trial, values, skip_if_finished=True)


def _measure_seeds(search: Search, trial: Trial, report: Report) -> list[float]:
    """Return the objectives, averaged over seeds, and store all outcomes with the trial."""
    spec, arm = search.spec, search.definition.arm(trial.params)
    outcomes: dict[int, dict[str, float]] = {}
    stages = {seed: [stage.path(spec.store).name for stage in spec.stages(arm, seed)] for seed in spec.seeds}
    trial.set_user_attr(STAGES, stages)
    count = len(spec.seeds)
    for index, seed in enumerate(spec.seeds):
        on_measures = pruning_callback(search.pruner, spec, trial, first=index == 0)

        def report_part(done: int, total: int, index: int = index) -> None:
            report(round(100 * (index + done / total)), 100 * count)

        try:
            outcomes[seed] = measure(spec, arm, seed, on_measures, report_part)
        except Exception as error:
            if kind_of(error) != "oom":
                raise
            outcomes[seed] = measure(spec, arm, seed, on_measures, report_part, micro=SMALLER)
        trial.set_user_attr(OUTCOMES, outcomes)
    values = [mean(outcomes, name) for name in spec.objectives]
    if undefined := [name for name, value in zip(spec.objectives, values, strict=True) if not math.isfinite(value)]:
        raise ValueError(f"not finite in some seed: {', '.join(undefined)}")
    return values


def _remove_checkpoints(search: Search, trial: Trial) -> None:
    """Remove the checkpoints of a pruned trial's optimizations, which are never resumed."""
    spec = search.spec
    if spec.policy:
        for seed in spec.seeds:
            optimized = spec.stages(search.definition.arm(trial.params), seed)[0]
            shutil.rmtree(spec.store / "checkpoints" / optimized.path(spec.store).name, ignore_errors=True)

"""Write studies to MLflow: one experiment per study, with one run for the study and one per trial.

Runs are not nested, because MLflow's table and charts hide nested runs.

Several commands can share a study. Each writes the finished trials that are not in MLflow yet, under a lock. A trial's run counts
only if it has the tag ``complete``, which is written last. The Optuna study stores the run of trial 7 in its attribute
``mlflow_run_7``.

A tracking store that is locked or down does not delay a search: the Optuna study holds every trial, and the next write adds the
missing ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ablations.tracking import records
from ablations.tracking.connection import UnavailableError, answering, trouble
from ablations.tracking.reader import Store
from ablations.tracking.reconcile import owner_tags
from ablations.tracking.recorder import create
from ablations.tracking.replay import PAUSE
from ablations.tracking.runs_folder import RunsFolder
from rrpo.identity import content_hash
from studies.recovery import lost_trials
from studies.results import final_values, pareto_front, ranked
from studies.samplers import SAMPLER
from studies.search import OUTCOMES, REASON, STAGES, Search
from studies.storage import shown

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial

LINK = "mlflow_run_{}"
"""Attribute of the Optuna study with a trial's MLflow run; that of the study's own run is ``mlflow_run_parent``."""
TAG_STUDY, TAG_TRIAL, TAG_STORAGE = "optuna_study", "optuna_trial", "optuna_storage"
MOST = 50_000
"""Largest number of runs that MLflow returns at once, and of trials in a study."""
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""Optuna's state -> MLflow's status."""


@dataclass
class Bridge:
    """Writes finished trials to MLflow, from the parent process alone."""

    search: Search
    """The search."""
    folder: RunsFolder
    """The runs folder with the MLflow store."""
    study: OptunaStudy
    """The study."""
    tags: Mapping[str, str]
    """Tags of every run: git sha, dirty."""
    parent: str = ""
    """ID of the study's run; empty before `start`."""
    _written: set[int] = field(default_factory=set)
    _trouble: str = ""
    _silent_until: float = 0.0

    @property
    def experiment(self) -> str:
        """The name of the MLflow experiment."""
        return f"{records.EXPERIMENT_STUDY}{self.search.name}"

    def start(self, identity: Mapping[str, Any]) -> None:
        """Create the study's run, or reopen that of a resumed study."""
        create(self.folder, self.experiment)
        store = Store(self.folder)
        self._client, self._experiment_id = store.client, store.experiment_id(self.experiment)
        with self._lock():
            runs = self._runs("study")
            if runs:
                self.parent = runs[0].info.run_id
                self._client.update_run(self.parent, status="RUNNING")
            else:
                self.parent = self._create(self.search.name, "study", {})
                for key, value in identity.items():
                    self._client.log_param(self.parent, key, str(value)[: records.TEXT_LIMIT])
                self.study.set_user_attr(LINK.format("parent"), self.parent)
            self._written = self._complete()
        search = self.search
        for key, value in {"trials": search.trials, "sampler": search.sampler, "pruner": search.pruner}.items():
            self._client.set_tag(self.parent, key, value)

    def write(self, trials: Sequence[FrozenTrial]) -> None:
        """Write every finished trial that has no run yet; do nothing while the store does not respond."""
        if self._new(trials) and time.monotonic() >= self._silent_until:
            self._attempt(lambda: self._write(trials))

    def end(self, status: str, numbers: Mapping[str, float] | None = None, report: Path | None = None) -> str:
        """Close the study's run with final metrics and the report folder; return a message if MLflow could not be written."""
        trials = self.study.get_trials(deepcopy=False)

        def close() -> None:
            self._write(trials)
            self._metrics(self.parent, numbers or {}, 0)
            if report is not None:
                self._client.log_artifacts(self.parent, str(report), "report")
            self._client.set_terminated(self.parent, status)

        self._attempt(close)
        if not self._trouble:
            return ""
        return (
            f"The tracking store does not respond ({self._trouble}): the study's end and {len(self._new(trials))} finished "
            "trials are not in MLflow. The study holds them; run the same command again to write them."
        )

    def _attempt(self, write: Callable[[], None]) -> None:
        """Call ``write``. If the store does not respond, keep the reason and do not try again for `PAUSE` seconds."""
        self._trouble = trouble(self.folder)
        if not self._trouble:
            try:
                with answering(self.folder):
                    write()
            except UnavailableError as error:
                self._trouble = error.why
        self._silent_until = time.monotonic() + PAUSE if self._trouble else 0.0

    def _write(self, trials: Sequence[FrozenTrial]) -> None:
        if not self._new(trials):
            return
        with self._lock():
            self._written |= self._complete()
            lost = lost_trials(trials)
            for trial in self._new(trials):
                run = self._trial(trial, trial.number in lost)
                self.study.set_user_attr(LINK.format(trial.number), run)
                self._written.add(trial.number)
        self._metrics(self.parent, self._best_so_far(), len(self._written))

    def _lock(self) -> FileLock:
        return FileLock(self.search.folder / "mlflow.lock")

    def _new(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return [trial for trial in trials if trial.state.is_finished() and trial.number not in self._written]

    def _runs(self, kind: str) -> list[Any]:
        filter_string = f"tags.{records.TAG_KIND} = '{kind}' and tags.{TAG_STUDY} = '{self.search.name}'"
        return list(self._client.search_runs([self._experiment_id], filter_string, max_results=MOST))

    def _complete(self) -> set[int]:
        """Return the numbers of the trials with a complete run; delete incomplete runs."""
        complete = set()
        for run in self._runs("trial"):
            if records.TAG_COMPLETE in run.data.tags:
                complete.add(int(run.data.tags[TAG_TRIAL]))
            else:
                self._client.delete_run(run.info.run_id)
        return complete

    def _create(self, name: str, kind: str, tags: Mapping[str, str], start: int | None = None) -> str:
        search = self.search
        study_tags = owner_tags() | {
            records.TAG_KIND: kind,
            records.TAG_PROFILE: search.spec.profile.name,
            TAG_STUDY: search.name,
            TAG_STORAGE: shown(search.storage) if search.storage else str(search.folder / "journal.log"),
            "seeds": ",".join(map(str, search.spec.seeds)),
        }
        all_tags = study_tags | dict(self.tags) | dict(tags)
        return str(self._client.create_run(self._experiment_id, start, all_tags, name).info.run_id)

    def _trial(self, trial: FrozenTrial, lost: bool) -> str:
        from mlflow.entities import Param

        arm = (
            self.search.definition.arm(trial.params)
            if trial.params.keys() == self.search.definition.space.keys()
            else None
        )
        tags = {
            TAG_TRIAL: str(trial.number),
            "state": "lost" if lost else trial.state.name.lower(),
            "sampler": str(trial.user_attrs.get(SAMPLER, "")),
            records.TAG_ARM_HASH: content_hash(arm)[:8] if arm else "",
        }
        tags |= {f"cell {seed}": " ".join(stages) for seed, stages in trial.user_attrs.get(STAGES, {}).items()}
        if REASON in trial.user_attrs:
            tags[records.TAG_FAILED] = trial.user_attrs[REASON][: records.TEXT_LIMIT]
        run = self._create(f"trial {trial.number}", "trial", tags, _milliseconds(trial.datetime_start))
        metrics = dict(zip(self.search.spec.objectives, final_values(trial), strict=False))
        for seed, outcomes in trial.user_attrs.get(OUTCOMES, {}).items():
            metrics |= {f"seed {seed}/{name}": value for name, value in outcomes.items()}
        if trial.duration is not None:
            metrics["seconds"] = trial.duration.total_seconds()
        self._client.log_batch(run, params=[Param(name, str(value)) for name, value in trial.params.items()])
        self._metrics(run, metrics, 0)
        self._client.set_terminated(run, STATUS[trial.state.name], _milliseconds(trial.datetime_complete))
        self._client.set_tag(run, records.TAG_COMPLETE, str(trial.number))
        return run

    def _best_so_far(self) -> dict[str, float]:
        """Return the best value so far and the size of the Pareto front, for the study's own run."""
        trials = ranked(self.study, self.search)
        if not trials:
            return {}
        standing = {
            f"best {self.search.spec.objectives[0]}": trials[0].values[0],
            "best trial": float(trials[0].number),
        }
        return standing | ({"front": float(len(pareto_front(self.study)))} if len(self.search.directions) > 1 else {})

    def _metrics(self, run: str, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step) for name, value in numbers.items() if math.isfinite(value)]
        if rows:
            self._client.log_batch(run, metrics=rows)


def _milliseconds(moment: Any) -> int | None:
    return int(moment.timestamp() * 1000) if moment else None

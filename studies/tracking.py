"""Studies in MLflow: an experiment a study, a parent run a command, under it one run a trial; each side knows the other's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ablations import records
from ablations.runs_folder import RunsFolder
from ablations.store import Store
from ablations.tracking import create
from studies.search import OUTCOMES, STAGES, Search
from studies.storage import REASON

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial

RUNS = "mlflow_runs"
"""Attribute of the Optuna study: trial number -> MLflow run."""
TAG_TRIAL = "optuna_trial"


@dataclass
class Bridge:
    """Writes finished trials to MLflow, once each, from the parent process alone."""

    search: Search
    """The search."""
    folder: RunsFolder
    """Where the store lies."""
    study: OptunaStudy
    """The study."""
    parent: str = ""
    _written: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """The parent run of this command."""
        create(self.folder, self.experiment)
        self._client = Store(self.folder).client
        self._number = Store(self.folder).experiment_id(self.experiment)
        self._written = dict(self.study.user_attrs.get(RUNS, {}))
        question = self.search.question
        tags = {records.TAG_KIND: "study", records.TAG_PROFILE: question.profile.name, "optuna_study": self.search.name}
        self.parent = self._client.create_run(self._number, run_name=self.search.name, tags=tags).info.run_id
        params = {
            "trials": self.search.trials,
            "sampler": self.search.sampler,
            "pruner": self.search.pruner,
            "objectives": ",".join(question.objectives),
            "seeds": ",".join(map(str, question.seeds)),
            "storage": self.search.storage or str(self.search.folder / "journal.log"),
        }
        for key, value in params.items():
            self._client.log_param(self.parent, key, value)

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return f"study {self.search.name}"

    def write(self, trials: Sequence[FrozenTrial]) -> None:
        """Every finished trial that has no run yet."""
        new = [t for t in trials if t.state.is_finished() and str(t.number) not in self._written]
        for trial in new:
            self._written[str(trial.number)] = self._trial(trial)
        if new:
            self.study.set_user_attr(RUNS, self._written)

    def end(self, status: str) -> None:
        """Close the parent run."""
        self._client.set_terminated(self.parent, status)

    def keep(self, folder: Any) -> None:
        """Log the study's tables and figures onto the parent run."""
        self._client.log_artifacts(self.parent, str(folder), "report")

    def _trial(self, trial: FrozenTrial) -> str:
        from mlflow.entities import Metric, Param, RunTag

        tags = {
            "mlflow.parentRunId": self.parent,
            records.TAG_KIND: "trial",
            TAG_TRIAL: str(trial.number),
            "state": trial.state.name.lower(),
            "cells": ",".join(trial.user_attrs.get(STAGES, [])),
        }
        if REASON in trial.user_attrs:
            tags[records.TAG_FAILED] = trial.user_attrs[REASON][:5000]
        run = str(self._client.create_run(self._number, run_name=f"trial {trial.number}", tags=tags).info.run_id)
        metrics = dict(zip(self.search.question.objectives, trial.values or [], strict=False))
        for seed, outcomes in trial.user_attrs.get(OUTCOMES, {}).items():
            metrics |= {f"seed {seed}/{name}": value for name, value in outcomes.items()}
        if trial.duration is not None:
            metrics["seconds"] = trial.duration.total_seconds()
        self._client.log_batch(
            run,
            metrics=[Metric(name, float(value), 0, 0) for name, value in metrics.items() if math.isfinite(value)],
            params=[Param(name, str(value)) for name, value in trial.params.items()],
            tags=[RunTag("seeds", ",".join(map(str, self.search.question.seeds)))],
        )
        self._client.set_terminated(run, "FINISHED" if trial.values else "FAILED")
        return run

"""Write studies to MLflow: one experiment per study, with one run for the study and one per trial.

Runs are not nested, because MLflow's table and charts hide nested runs.

Runs go through the outbox (`ablations.tracking.outbox`), so a tracking store that is locked or down does not delay a search. Each
run has a key of its own, so that commands that share a study write every trial once. The Optuna study's attribute
``mlflow_run_7`` says that trial 7 is in the outbox or in MLflow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial

from ablations.tracking import records
from ablations.tracking.outbox import Entry, key_for, now
from ablations.tracking.reconcile import owner_tags
from ablations.tracking.replay import Replay
from rrpo.identity import content_hash
from studies.recovery import lost_trials
from studies.results import final_values, pareto_front, ranked
from studies.samplers import SAMPLER
from studies.search import OUTCOMES, REASON, STAGES, Search
from studies.storage import IDENTITY

LINK = "mlflow_run_{}"
"""Attribute of the Optuna study with the key, or in older studies the id, of a trial's MLflow run."""
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""Optuna's state -> MLflow's status."""


@dataclass
class Bridge:
    """Writes finished trials to MLflow, from the parent process alone."""

    search: Search
    """The search."""
    study: OptunaStudy
    """The study."""
    tags: Mapping[str, str]
    """Tags of every run: git sha, dirty."""

    @cached_property
    def replay(self) -> Replay:
        """Writes the outbox to MLflow."""
        return Replay(self.search.runs)

    def write(
        self, status: str = "RUNNING", numbers: Mapping[str, float] | None = None, report: Path | None = None
    ) -> None:
        """Write the finished trials that have no run yet, and the study's run with metrics and the files of its report.

        What the store does not accept now waits in the outbox.
        """
        trials, written = self.study.get_trials(deepcopy=False), self.study.user_attrs
        finished = [trial for trial in trials if trial.state.is_finished()]
        lost = lost_trials(trials)
        for trial in finished:
            link = LINK.format(trial.number)
            if link not in written:
                entry = self._trial(trial, trial.number in lost)
                self.replay.outbox.put(entry)
                self.study.set_user_attr(link, entry.key)
        files = {f"report/{path.name}": path for path in report.iterdir()} if report else {}
        self.replay.outbox.put(self._study(status, dict(numbers or {}), len(finished)), files)
        self.replay.flush(force=status != "RUNNING")

    def _study(self, status: str, metrics: dict[str, float], step: int) -> Entry:
        search, identity = self.search, self.study.user_attrs[IDENTITY]
        trials = ranked(self.study)
        if trials:
            metrics |= {f"best {search.spec.objectives[0]}": trials[0].values[0], "best trial": trials[0].number}
            metrics |= {"front": len(pareto_front(self.study))} if len(search.directions) > 1 else {}
        tags = {"trials": str(search.trials), "sampler": search.sampler, "pruner": search.pruner}
        params = {key: str(value)[: records.TEXT_LIMIT] for key, value in identity.items()}
        return self._entry("study", search.name, identity, tags, metrics, params=params, status=status, step=step)

    def _trial(self, trial: FrozenTrial, lost: bool) -> Entry:
        definition, attributes = self.search.definition, trial.user_attrs
        complete = trial.params.keys() == definition.space.keys()
        tags = {
            "optuna_trial": str(trial.number),
            "state": "lost" if lost else trial.state.name.lower(),
            "sampler": str(attributes.get(SAMPLER, "")),
            records.TAG_ARM_HASH: content_hash(definition.arm(trial.params))[:8] if complete else "",
        }
        tags |= {f"cell {seed}": " ".join(stages) for seed, stages in attributes.get(STAGES, {}).items()}
        tags |= {records.TAG_FAILED: attributes[REASON][: records.TEXT_LIMIT]} if REASON in attributes else {}
        metrics = dict(zip(self.search.spec.objectives, final_values(trial), strict=False))
        for seed, outcomes in attributes.get(OUTCOMES, {}).items():
            metrics |= {f"seed {seed}/{name}": value for name, value in outcomes.items()}
        metrics["seconds"] = trial.duration.total_seconds() if trial.duration else math.nan
        return self._entry(
            "trial",
            f"trial {trial.number}",
            [trial.number, str(trial.datetime_start), trial.params],
            tags,
            metrics,
            params={name: str(value) for name, value in trial.params.items()},
            status=STATUS[trial.state.name],
            started=int(trial.datetime_start.timestamp() * 1000) if trial.datetime_start else 0,
            ended=int(trial.datetime_complete.timestamp() * 1000) if trial.datetime_complete else now(),
        )

    def _entry(
        self, kind: str, name: str, identity: Any, tags: Mapping[str, str], metrics: Mapping[str, float], **fields: Any
    ) -> Entry:
        search = self.search
        shared = {
            records.TAG_KIND: kind,
            records.TAG_PROFILE: search.spec.profile.name,
            "optuna_study": search.name,
            "optuna_storage": search.address,
            "seeds": ",".join(map(str, search.spec.seeds)),
        }
        return Entry(
            key=key_for(kind, [search.name, identity]),
            experiment=f"{records.EXPERIMENT_STUDY}{search.name}",
            name=name,
            tags=owner_tags() | shared | dict(self.tags) | dict(tags),
            metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
            **fields,
        )

"""Find trials whose process has died, fail them, and queue their points again.

On the same host, a dead process is found at once. For other hosts, a database stores Optuna's heartbeat. A journal file has no
heartbeat; there, each process renews a claim file next to the journal (`rrpo.pipeline.claims`). An owner without a sign of life
for one lease counts as dead. If it was only suspended, it later finds its trial finished and leaves it unchanged. A point at
which `MOST` processes died is not tried again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrpo.pipeline.claims import LEASE, Claim, Claims, Owner, is_alive, keep_renewed, repeated, this_process
from studies.samplers import SAMPLER

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial, Trial

OWNER, RETRY, COST = "owner", "retry_of", "processes"
MOST = 3
"""Largest number of processes that may die at one point."""
BEAT, SILENCE = round(LEASE / 4), round(LEASE)
"""Seconds between two heartbeats in a database, and seconds without one after which the owner counts as dead."""


def has_heartbeat(study: OptunaStudy) -> bool:
    """Return whether the study's storage stores heartbeats: a database does, a journal file does not."""
    return hasattr(study._storage, "record_heartbeat")


def claim(study: OptunaStudy, trial: Trial, folder: Path) -> Claim | None:
    """Record that this process runs a trial; return the claim to renew, or None if the storage has heartbeats."""
    trial.set_user_attr(OWNER, asdict(this_process()))
    if has_heartbeat(study):
        study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
        return None
    return _claims(folder).take(_name(trial.number))


def alive(study: OptunaStudy, trial: Trial, claimed: Claim | None) -> AbstractContextManager[Any]:
    """Return a context that renews the trial's heartbeat or claim until it ends."""
    if claimed is not None:
        return keep_renewed(claimed)
    return repeated(lambda: study._storage.record_heartbeat(trial._trial_id), BEAT)  # type: ignore[attr-defined]


def recover(study: OptunaStudy, folder: Path) -> list[int]:
    """Fail the running trials whose owners are dead, and queue their points again.

    Return the trial numbers, except those that Optuna's heartbeat finds. The caller must hold the study's lock, so that no trial
    is between `Study.ask` and `claim`.
    """
    from optuna.storages import fail_stale_trials
    from optuna.trial import TrialState

    lost = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _dead(study, trial, folder):
            queue_again(study, trial)
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            lost.append(trial.number)
    if has_heartbeat(study):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental in Optuna
            fail_stale_trials(study)  # trials of other hosts; its callback is `queue_again`
    return lost


def queue_again(study: OptunaStudy, trial: FrozenTrial, cost: int = 1) -> None:
    """Queue a lost trial's point, once, unless `MOST` processes have died at it. ``cost`` is 0 if none died now."""
    cost += int(trial.user_attrs.get(COST, 0))
    if cost < MOST and trial.number not in lost_trials(study.get_trials(deepcopy=False)):
        sampler = {SAMPLER: trial.user_attrs[SAMPLER]} if SAMPLER in trial.user_attrs else {}
        study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number, COST: cost} | sampler)


def lost_trials(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that were lost with their owner and queued again. They do not count as trials."""
    return {trial.user_attrs[RETRY] for trial in trials if RETRY in trial.user_attrs}


def _dead(study: OptunaStudy, trial: FrozenTrial, folder: Path) -> bool:
    owner = trial.user_attrs.get(OWNER)
    lives = is_alive(Owner(**owner)) if owner else None
    if lives is not None:
        return not lives
    if not has_heartbeat(study):
        return _claims(folder).holder(_name(trial.number)) is None
    if owner:
        return False  # another host's trial: its heartbeat decides
    return _age(trial) > SILENCE  # its process was killed between ask and claim


def _age(trial: FrozenTrial) -> float:
    started: Any = trial.datetime_start
    return (datetime.now() - started).total_seconds() if started else float("inf")


def _claims(folder: Path) -> Claims:
    return Claims(folder / "claims")


def _name(number: int) -> str:
    return f"trial-{number}"

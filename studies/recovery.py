"""Find trials whose process has died, fail them, and queue their points again.

Each running trial stores its owner and, every `BEAT` seconds, a sign of life. On the owner's own host, a dead process is found at
once. On other hosts, an owner without a sign of life for `SILENCE` seconds counts as dead; if it was only suspended, it later
finds its trial finished and leaves it unchanged. A point at which `MOST` processes died is not tried again.

Optuna's own heartbeat works for databases only, not for a journal file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace

from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial, Trial, TrialState

from rrpo.pipeline.claims import LEASE, Owner, is_alive, repeated, this_process
from studies.samplers import SAMPLER

OWNER, SEEN, RETRY, COST = "owner", "seen", "retry_of", "processes"
"""User attributes of a trial: its process, the time of its last sign of life, the trial that it repeats, and the number of
processes that died at its point."""
MOST = 3
"""Largest number of processes that may die at one point."""
BEAT, SILENCE = LEASE / 4, LEASE
"""Seconds between two signs of life, and seconds without one after which the owner counts as dead."""


def alive(trial: Trial) -> AbstractContextManager[None]:
    """Return a context in which the trial gives signs of life."""
    return repeated(lambda: trial.set_user_attr(SEEN, time.time()), BEAT)


def claim(trial: Trial) -> None:
    """Record that this process runs a trial from now on, without the host's name, so that the study can be passed on."""
    trial.set_user_attr(OWNER, asdict(replace(this_process(), name="")))
    trial.set_user_attr(SEEN, time.time())


def recover(study: OptunaStudy, *, exclusive: bool = False) -> list[int]:
    """Fail the running trials whose owners are dead, queue their points again, and return their numbers.

    Hold the study's lock, so that no two processes queue the same point.

    Args:
        study: Optuna study.
        exclusive: Whether the lock excludes every other process that asks for trials, so that a running trial without an owner is
            one whose process was killed before it could claim it. Hosts that share a database may have no lock in common.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    lost = [trial for trial in running if (exclusive and OWNER not in trial.user_attrs) or not _lives(trial)]
    for trial in lost:
        queue_again(study, trial)
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    return [trial.number for trial in lost]


def queue_again(study: OptunaStudy, trial: FrozenTrial, cost: int = 1) -> None:
    """Queue a lost trial's point, once, unless `MOST` processes have died at it. ``cost`` is 0 if none died now."""
    cost += int(trial.user_attrs.get(COST, 0))
    if cost < MOST and trial.number not in lost_trials(study.get_trials(deepcopy=False)):
        sampler = {SAMPLER: trial.user_attrs[SAMPLER]} if SAMPLER in trial.user_attrs else {}
        study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number, COST: cost} | sampler)


def lost_trials(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that were lost with their owner and queued again. They do not count as trials."""
    return {trial.user_attrs[RETRY] for trial in trials if RETRY in trial.user_attrs}


def _lives(trial: FrozenTrial) -> bool:
    owner = trial.user_attrs.get(OWNER)  # none if its process was killed between ask and claim
    lives = is_alive(Owner(**owner)) if owner else None
    if lives is not None or trial.datetime_start is None:
        return bool(lives)
    return time.time() - trial.user_attrs.get(SEEN, trial.datetime_start.timestamp()) < SILENCE

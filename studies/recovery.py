"""Trials whose process has died: found, failed, and their points queued again.

On the same host a dead process is found at once. Of another host's, a database keeps Optuna's heartbeat; a journal file has none,
so there a claim file beside the journal is renewed (`rrpo.pipeline.claims`). An owner that was silent for a lease counts as
dead; should it wake up again, it finds its trial finished and leaves it alone. A point that has cost `MOST` processes is not
tried again.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrpo.pipeline.claims import LEASE, Claim, Claims, Owner, is_alive, kept, this_process
from studies.samplers import SAMPLER

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial, Trial

OWNER, RETRY, COST = "owner", "retry_of", "processes"
MOST = 3
"""Processes that one point may cost."""
BEAT, SILENCE = round(LEASE / 4), round(LEASE)
"""Seconds between two heartbeats in a database, and without one until the owner counts as dead."""


def has_heartbeat(study: OptunaStudy) -> bool:
    """Whether the study's storage keeps heartbeats: a database does."""
    return hasattr(study._storage, "record_heartbeat")


def claim(study: OptunaStudy, trial: Trial, folder: Path) -> Claim | None:
    """Write down that this process runs a trial; where the storage has no heartbeat, the claim to be renewed."""
    trial.set_user_attr(OWNER, asdict(this_process()))
    if has_heartbeat(study):
        study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
        return None
    return _claims(folder).take(_name(trial.number))


@contextmanager
def alive(study: OptunaStudy, trial: Trial, claimed: Claim | None) -> Iterator[None]:
    """Show the others, until the block ends, that the trial's process lives."""
    if claimed is not None:
        with kept(claimed):
            yield
        return
    end = threading.Event()

    def beat() -> None:
        while not end.wait(BEAT):
            with suppress(Exception):  # a database that is away for a moment: the next turn tries again
                study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def recover(study: OptunaStudy, folder: Path) -> list[int]:
    """Fail the running trials whose owners are dead and queue their points again; the numbers of those of this host.

    The caller holds the study's lock, so that none is between asking and claiming.
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
            warnings.simplefilter("ignore")  # it is called experimental
            fail_stale_trials(study)  # of other hosts; queues them by `queue_again`
    return lost


def queue_again(study: OptunaStudy, trial: FrozenTrial, cost: int = 1) -> None:
    """Queue a lost trial's point, once, unless it has cost too many processes."""
    cost += int(trial.user_attrs.get(COST, 0))
    if cost < MOST and trial.number not in lost_trials(study.get_trials(deepcopy=False)):
        kept_of = {SAMPLER: trial.user_attrs[SAMPLER]} if SAMPLER in trial.user_attrs else {}
        study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number, COST: cost} | kept_of)


def lost_trials(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of trials that died with their owner and were queued again: they do not count."""
    return {trial.user_attrs[RETRY] for trial in trials if RETRY in trial.user_attrs}


def _dead(study: OptunaStudy, trial: FrozenTrial, folder: Path) -> bool:
    stored = trial.user_attrs.get(OWNER)
    living = is_alive(Owner(**stored)) if stored else None
    if living is not None:
        return not living
    if not has_heartbeat(study):
        return _claims(folder).holder(_name(trial.number)) is None
    if stored:
        return False  # another host's: its heartbeat tells
    return _age(trial) > SILENCE  # killed between asking and claiming


def _age(trial: FrozenTrial) -> float:
    started: Any = trial.datetime_start
    return (datetime.now() - started).total_seconds() if started else float("inf")


def _claims(folder: Path) -> Claims:
    return Claims(folder / "claims")


def _name(number: int) -> str:
    return f"trial-{number}"

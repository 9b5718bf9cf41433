"""Where a study lives: a journal file in the runs folder, or a database by URL; its identity; trials whose owner has died.

A journal file is shared by the processes of one file system and needs no server; sqlite, PostgreSQL and MySQL go by URL.
Dead owners are found by process identity, on this host alone: a trial that died on another host stays running there until that
host's next start. (Optuna's heartbeat belongs to ``Study.optimize``; here trials are asked for and told.)
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ablations.errors import InputError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial, Trial

OWNER, IDENTITY, RETRY, REASON = "owner", "identity", "retry_of", "reason"


def folder_of(runs_dir: Path, name: str) -> Path:
    """Where a study's own files lie."""
    return runs_dir / "studies" / name


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """The storage, made where it is missing, under a lock: several processes that open a fresh database break it.

    Raises InputError for one that cannot be reached or is of another version.
    """
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        try:
            if url is None:
                path = str(folder / "journal.log")
                return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
            return RDBStorage(url)
        except Exception as error:
            raise InputError(
                "the study's storage cannot be opened",
                got=f"{url or folder}: {type(error).__name__}: {str(error).splitlines()[0]}",
                fix="check the address, that its server runs and its driver is installed, or leave --storage out",
            ) from None


def open_study(storage: BaseStorage, name: str, directions: Sequence[Any], identity: Mapping[str, Any]) -> OptunaStudy:
    """The study, made with this identity or resumed; a changed one is refused with what differs.

    The identity is the space, objectives, seeds, profile and world: trials of two identities are not comparable.
    """
    import optuna

    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        stored = study.user_attrs.get(IDENTITY)
    except Exception as error:
        raise InputError(
            "the study cannot be read",
            got=f"{name}: {type(error).__name__}: {error}",
            fix="use another --storage or --name",
        ) from None
    wanted = json.loads(json.dumps(identity))
    if stored is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(IDENTITY, wanted)
    elif stored != wanted:
        raise InputError(
            "a study of that name has another space or setting",
            got="; ".join(differences(stored or {}, wanted)) or "no identity is stored: not made by this program",
            fix="give another --name, or the options that it was started with",
        )
    return study


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: was X, now Y`` of every leaf that differs."""
    found = []
    for key in sorted({*stored, *wanted}):
        old, new = stored.get(key, "absent"), wanted.get(key, "absent")
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: was {old}, now {new}")
    return found


def identity_of_process(pid: int | None = None) -> dict[str, Any]:
    """This process, so that another can tell whether it still lives: a process number alone is used again."""
    pid = os.getpid() if pid is None else pid
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def alive(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this host still lives; of another host, that is not known here and counts as living."""
    if owner["host"] != socket.gethostname():
        return True
    started = _started(int(owner["pid"]))
    return started is not None and started == owner["started"]


def _started(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def claim(trial: Trial) -> None:
    """Write down who runs a trial."""
    trial.set_user_attr(OWNER, identity_of_process())


def recover(study: OptunaStudy) -> list[int]:
    """Fail the running trials whose owner on this host is dead and queue their points again; their numbers.

    The caller holds the study's lock, so that a trial is recovered once and none is between asking and claiming.
    """
    from optuna.trial import TrialState

    lost = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(OWNER)
        if owner is not None and alive(owner):
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number})
        lost.append(trial.number)
    return lost


def lost_trials(trials: list[FrozenTrial]) -> set[int]:
    """Numbers of trials that died with their owner and were queued again: they do not count."""
    return {t.user_attrs[RETRY] for t in trials if RETRY in t.user_attrs}

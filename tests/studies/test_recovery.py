"""Trials of dead processes are found and run again, on this host at once, of other hosts when they are silent; once each."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from rrpo.pipeline import claims
from studies import recovery
from studies.catalogue import regularizers
from studies.recovery import COST, MOST, OWNER, RETRY, SEEN, alive, claim, lost_trials, queue_again, recover
from studies.samplers import GIVEN, SAMPLER
from studies.storage import open_storage, open_study

SPACE = dict(regularizers().space)
CLAIM = """
import sys, time
from pathlib import Path
from rrpo.pipeline import claims
if sys.argv[3]:
    claims.host_identity = lambda: sys.argv[3]
from studies.catalogue import regularizers
from studies.recovery import alive, claim
from studies.storage import open_storage, open_study
folder = Path(sys.argv[1])
study = open_study(open_storage(sys.argv[2] or None, folder), "s", ["maximize"], {})
trial = study.ask(dict(regularizers().space))
claim(trial)
with alive(trial):
    print(trial.number, flush=True)
    time.sleep(60)
"""
"""A process that claims a trial and keeps it alive, on this host or, so it says, on another."""


@pytest.fixture(params=["journal", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "" if request.param == "journal" else f"sqlite:///{tmp_path}/s.db"


def opened(folder: Path, url: str) -> optuna.Study:
    return open_study(open_storage(url or None, folder), "s", ["maximize"], {})


def owner(folder: Path, url: str, host: str = "") -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLAIM, str(folder), url, host],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def left_by_the_dead(study: optuna.Study) -> int:
    """Ask for a trial whose owner on this host is dead, and return its number."""
    trial = study.ask(SPACE)
    dead: dict[str, Any] = {"host": claims.host_identity(), "pid": 2**22 + 1, "started": "0", "name": ""}
    trial.set_user_attr(OWNER, dead)
    return trial.number


def test_a_trial_whose_process_is_killed_is_queued_again_once_and_the_livings_are_not(tmp_path: Path, url: str):
    study = opened(tmp_path, url)
    process, number = owner(tmp_path, url)
    try:
        living = study.ask(SPACE)
        claim(living)
        assert recover(study) == []
    finally:
        process.kill()
        process.wait()
    assert recover(study) == [number]
    assert recover(study) == []
    assert platform.node() not in json.dumps([trial.user_attrs for trial in study.trials]), "the study can be passed on"
    again = study.ask(SPACE)
    assert again.params == pytest.approx(study.trials[number].params)
    assert again.user_attrs[RETRY] == number
    assert study.trials[living.number].state == TrialState.RUNNING
    assert lost_trials(study.trials) == {number}


def test_another_hosts_trial_lives_while_it_is_heard_of_and_no_longer(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    study = opened(tmp_path, url)
    process, number = owner(tmp_path, url, "elsewhere")
    assert recover(study) == []
    process.kill()
    process.wait()
    assert recover(study) == [], "nobody here can know yet"
    monkeypatch.setattr(recovery, "SILENCE", time.time() - study.trials[number].user_attrs[SEEN])
    recover(study)
    assert study.trials[number].state == TrialState.FAIL
    assert lost_trials(study.trials) == {number}
    assert study.trials[-1].state == TrialState.WAITING


def test_a_living_owner_gives_signs_of_life(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recovery, "BEAT", 0.05)
    study = opened(tmp_path, url)
    trial = study.ask(SPACE)
    claim(trial)
    first = study.trials[0].user_attrs[SEEN]
    deadline = time.monotonic() + 30
    with alive(trial):
        while study.trials[0].user_attrs[SEEN] == first and time.monotonic() < deadline:
            time.sleep(0.02)
    last = study.trials[0].user_attrs[SEEN]
    assert first < last
    time.sleep(0.2)
    assert study.trials[0].user_attrs[SEEN] == last, "no longer"


def test_a_trial_killed_between_asking_and_claiming_is_found(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    study = opened(tmp_path, url)
    first, second = study.ask(SPACE), study.ask(SPACE)
    claim(second)
    assert recover(study) == [], "another host may be about to claim it"
    assert recover(study, exclusive=True) == [first.number]
    third = study.ask(SPACE)
    monkeypatch.setattr(recovery, "SILENCE", -1)
    assert recover(study) == [third.number]


def test_a_point_that_costs_processes_is_given_up(tmp_path: Path, url: str):
    study = opened(tmp_path, url)
    study.enqueue_trial(dict(regularizers().paper), user_attrs={SAMPLER: GIVEN})
    for turn in range(1, MOST + 1):
        number = left_by_the_dead(study)
        assert recover(study) == [number]
        assert [t.user_attrs[COST] for t in study.trials if t.state == TrialState.WAITING] == [turn] * (turn < MOST)
    assert len(study.trials) == MOST
    assert {t.user_attrs[SAMPLER] for t in study.trials} == {GIVEN}


def test_a_point_is_queued_once_even_where_the_one_who_did_it_died_before_telling(tmp_path: Path, url: str):
    study = opened(tmp_path, url)
    number = left_by_the_dead(study)
    queue_again(study, study.trials[number])
    recover(study)
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]

"""Trials told to a real storage: values, pruning, failures with their reason, the dead recovered, a changed space refused."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import pytest

from ablations.errors import InputError
from rrpo.config import ArmConfig
from rrpo.failures import DivergedError
from rrpo.profiles import SMOKE
from studies import search as searching
from studies.search import Search, counted, run_trial, work
from studies.storage import OWNER, REASON, RETRY, identity_of_process, open_storage, open_study, recover
from studies.trial import Question

Watch = Callable[[int, Mapping[str, float]], None]


def bowl(question: Question, arm: ArmConfig, seed: int, watch: Watch) -> dict[str, float]:
    """An outcome that is best at epsilon .2, alpha 1, with an offset a seed; the looks tell the same."""
    gain = -((arm.regularizers.epsilon - 0.2) ** 2) * 10 - (arm.regularizers.alpha - 1) ** 2 + 0.01 * (seed - 1000)
    for step in range(0, 60, 5):
        watch(step, {"val_logprob": gain})
    return {"gold_gain": gain, "hack_rate": arm.regularizers.alpha, "uptake": 0.0, "moved": 1.0}


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.setattr(searching, "measure", bowl)
    question = Question(profile=SMOKE, store=tmp_path, seeds=(1000, 1001), objectives=("gold_gain",))
    return Search(study="regularizers", name="s", question=question, trials=20)


def opened(search: Search, url: str | None = None) -> optuna.Study:
    study = open_study(open_storage(url, search.folder), search.name, search.directions, {"space": 1})
    study.enqueue_trial(dict(search.definition.paper))
    return study


@pytest.mark.parametrize("url", [None, "sqlite"])
def test_a_search_gets_nearer_to_the_best_point_and_stops_at_its_number(
    search: Search, tmp_path: Path, url: str | None
):
    address = f"sqlite:///{tmp_path}/s.db" if url else None
    search = Search(**{**vars(search), "storage": address})
    study = opened(search, address)
    work(search)
    trials = study.trials
    assert len(counted(study)) == 20
    assert trials[0].params == pytest.approx(search.definition.paper)
    assert study.best_value > trials[0].value
    assert trials[0].value == pytest.approx(-0.35 + 0.005), "the mean over both seeds"
    work(search)
    assert len(counted(study)) == 20, "the same command again runs nothing"


def test_the_median_pruner_ends_a_point_that_is_worse_at_its_first_looks(search: Search):
    """Points are given, so that nothing hangs on what a sampler draws."""
    study = opened(search)
    alphas = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 0.0, 0.95]
    for alpha in alphas[1:]:
        study.enqueue_trial(dict(search.definition.paper) | {"alpha": alpha})
    work(Search(**{**vars(search), "trials": len(alphas)}))
    states = {trial.params["alpha"]: trial.state.name for trial in study.trials}
    assert states == dict.fromkeys(alphas, "COMPLETE") | {0.0: "PRUNED"}
    (worst,) = (trial for trial in study.trials if trial.state.name == "PRUNED")
    assert max(worst.intermediate_values) == 20, "after the warm-up, before the last look at step 55"


def test_a_search_with_one_worker_is_the_same_again_whatever_its_process(
    search: Search, monkeypatch: pytest.MonkeyPatch
):
    found = []
    for pid in (1, 10**6):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        again = Search(**{**vars(search), "trials": 14, "name": f"s{pid}"})
        study = opened(again)
        work(again)
        found.append([(trial.params, trial.state) for trial in study.trials])
    assert found[0] == found[1]


def test_several_objectives_are_never_pruned_and_have_a_front(search: Search):
    question = Question(
        profile=SMOKE, store=search.question.store, seeds=(1000,), objectives=("gold_gain", "hack_rate")
    )
    search = Search(**{**vars(search), "question": question, "trials": 12, "sampler": "random"})
    study = opened(search)
    work(search)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert len(study.best_trials) >= 2


def test_a_diverged_trial_fails_with_its_reason_and_the_search_goes_on(search: Search, monkeypatch: pytest.MonkeyPatch):
    def diverges(question: Question, arm: ArmConfig, seed: int, watch: Watch) -> dict[str, float]:
        if arm.regularizers.alpha > 0.4:
            raise DivergedError("policy step 3 of 20: loss nan")
        return bowl(question, arm, seed, watch)

    monkeypatch.setattr(searching, "measure", diverges)
    search = Search(**{**vars(search), "sampler": "random", "pruner": "none", "trials": 10})
    study = opened(search)
    work(search)
    failed = [t for t in study.trials if t.state.name == "FAIL"]
    assert failed[0].number == 0
    assert failed[0].user_attrs[REASON] == "DivergedError: policy step 3 of 20: loss nan"
    assert len(counted(study)) == 10
    assert any(t.state.name == "COMPLETE" for t in study.trials)


def test_a_policy_that_does_not_move_is_infeasible(search: Search, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(searching, "measure", lambda *a: bowl(*a) | {"moved": 0.01})
    study = opened(search)
    run_trial(search, study, search.definition, study.ask(dict(search.definition.space)))
    assert study.trials[0].constraints["moved"] == pytest.approx(0.09)


def test_the_trial_of_a_killed_process_is_queued_again_once_and_a_living_ones_is_not(search: Search):
    study = opened(search)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        lost, own = study.ask(dict(search.definition.space)), study.ask(dict(search.definition.space))
        lost.set_user_attr(OWNER, identity_of_process(process.pid))
        own.set_user_attr(OWNER, identity_of_process())
        assert recover(study) == []
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while not (found := recover(study)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == [lost.number]
    assert recover(study) == []
    again = study.ask(dict(search.definition.space))
    assert again.params == pytest.approx(lost.params)
    assert again.user_attrs[RETRY] == lost.number
    assert lost.number not in {t.number for t in counted(study)}


def test_a_changed_space_is_refused_with_what_differs(search: Search):
    storage = open_storage(None, search.folder)
    identity = {"space": {"epsilon": "0..0.3", "alpha": "0..2"}, "seeds": [1000, 1001]}
    open_study(storage, "t", ["maximize"], identity)
    assert open_study(storage, "t", ["maximize"], identity).study_name == "t"
    with pytest.raises(InputError) as caught:
        open_study(storage, "t", ["maximize"], {"space": {"epsilon": "0..0.5", "alpha": "0..2"}, "seeds": [1000]})
    assert "seeds: was [1000, 1001], now [1000]; space.epsilon: was 0..0.3, now 0..0.5" in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "nonsense", "sqlite:////nowhere/at/all.db"])
def test_a_storage_out_of_reach_gets_one_message(search: Search, url: str):
    with pytest.raises(InputError, match="cannot be opened"):
        open_storage(url, search.folder)

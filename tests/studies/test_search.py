"""Trials told to a real storage: values, pruning, failures with their reason, what is given back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from ablations.execution.jobs import SMALLER
from rrpo.config import ArmConfig
from rrpo.pipeline.errors import DivergedError, Interrupted
from rrpo.profiles import SMOKE
from studies import search as searching
from studies.recovery import RETRY
from studies.samplers import GIVEN, SAMPLER
from studies.search import OUTCOMES, REASON, Search, counted, one_trial
from studies.storage import open_storage, open_study
from studies.trial import TrialSpec

Watch = Callable[[int, Mapping[str, float]], None]


Report = Callable[[int, int], None]


def bowl(
    spec: TrialSpec, arm: ArmConfig, seed: int, on_measures: Watch, report: Report, micro: int | None = None
) -> dict[str, float]:
    """An outcome that is best at epsilon .2, alpha 1, with an offset a seed; the looks tell the same."""
    gain = -((arm.regularizers.epsilon - 0.2) ** 2) * 10 - (arm.regularizers.alpha - 1) ** 2 + 0.01 * (seed - 1000)
    for step in range(0, 20, 5):
        on_measures(
            step,
            {"val_accuracy": gain, "val_clean": gain, "val_hack_rate": arm.regularizers.alpha, "proxy_accuracy": 1.0},
        )
        report(step + 5, 20)
    return {"clean_success": gain, "hacked_share": arm.regularizers.alpha, "uptake": 0.0, "kl_token": 1.0}


def work(search: Search) -> None:
    """What one worker does."""
    while one_trial(search, lambda done, total: None) is not None:
        pass


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.setattr(searching, "measure", bowl)
    monkeypatch.setattr(searching, "_opened", {})
    spec = TrialSpec(profile=SMOKE, store=tmp_path, seeds=(1000, 1001), objectives=("clean_success",))
    return Search(study="regularizers", name="s", spec=spec, trials=20)


def opened(search: Search, url: str | None = None) -> optuna.Study:
    study = open_study(open_storage(url, search.folder), search.name, search.directions, {"space": 1})
    study.enqueue_trial(dict(search.definition.paper), user_attrs={SAMPLER: GIVEN})
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
    assert [t.user_attrs[SAMPLER] for t in trials] == [GIVEN, *["tpe"] * 19]
    assert trials[0].value == pytest.approx(-0.35 + 0.005), "the mean over both seeds"
    work(search)
    assert len(counted(study)) == 20, "the same command again runs nothing"


def test_a_trial_whose_process_was_killed_before_it_claimed_it_is_run_again(search: Search):
    study = opened(search)
    study.ask(dict(search.definition.space))
    work(Search(**{**vars(search), "trials": 3}))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == pytest.approx(search.definition.paper)


def test_the_median_pruner_ends_a_point_that_is_worse_at_its_first_looks(search: Search):
    """Points are given, so that nothing hangs on what a sampler draws."""
    study = opened(search)
    arm = search.definition.arm(dict(search.definition.paper) | {"alpha": 0.0})
    checkpoint = search.spec.store / "checkpoints" / search.spec.stages(arm, 1000)[0].path(search.spec.store).name
    checkpoint.mkdir(parents=True)
    alphas = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 0.0, 0.95]
    for alpha in alphas[1:]:
        study.enqueue_trial(dict(search.definition.paper) | {"alpha": alpha})
    work(Search(**{**vars(search), "trials": len(alphas)}))
    states = {trial.params["alpha"]: trial.state.name for trial in study.trials}
    assert states == dict.fromkeys(alphas, "COMPLETE") | {0.0: "PRUNED"}
    (worst,) = (trial for trial in study.trials if trial.state.name == "PRUNED")
    assert not checkpoint.exists(), "its checkpoints are of no use"
    assert max(worst.intermediate_values) == 10, "at the first look after the warm-up of a third of 20 steps"


def test_hyperband_ends_a_point_that_is_worse_after_the_warm_up(search: Search):
    search = Search(**{**vars(search), "trials": 3, "pruner": "hyperband"})
    study = opened(search)
    for alpha in (0.0, 1.0):
        study.enqueue_trial(dict(search.definition.paper) | {"alpha": alpha})
    work(search)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert max(study.trials[1].intermediate_values) == 10


def test_pruning_goes_the_way_of_the_objective(search: Search):
    """The hacked share is to fall: of these the highest is pruned, not the lowest."""
    spec = TrialSpec(profile=SMOKE, store=search.spec.store, seeds=(1000,), objectives=("hacked_share",))
    search = Search(**{**vars(search), "spec": spec, "trials": 10})
    study = opened(search)
    for alpha in (1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 2.0, 0.0):
        study.enqueue_trial(dict(search.definition.paper) | {"alpha": alpha})
    work(search)
    assert {t.params["alpha"] for t in study.trials if t.state.name == "PRUNED"} == {2.0}


def test_a_search_with_one_worker_is_the_same_again_whatever_its_process(
    search: Search, monkeypatch: pytest.MonkeyPatch
):
    results = []
    for pid in (1, 10**6):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        again = Search(**{**vars(search), "trials": 14, "name": f"s{pid}"})
        study = opened(again)
        work(again)
        results.append([(trial.params, trial.state) for trial in study.trials])
    assert results[0] == results[1]


def test_several_objectives_are_never_pruned_and_have_a_front(search: Search):
    spec = TrialSpec(
        profile=SMOKE, store=search.spec.store, seeds=(1000,), objectives=("clean_success", "hacked_share")
    )
    search = Search(**{**vars(search), "spec": spec, "trials": 12, "sampler": "random"})
    study = opened(search)
    work(search)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert len(study.best_trials) >= 2


def test_a_diverged_trial_fails_with_its_reason_and_the_search_goes_on(search: Search, monkeypatch: pytest.MonkeyPatch):
    def diverges(spec: TrialSpec, arm: ArmConfig, *rest) -> dict[str, float]:
        if arm.regularizers.alpha > 0.4:
            raise DivergedError("policy step 3 of 20: loss nan")
        return bowl(spec, arm, *rest)

    monkeypatch.setattr(searching, "measure", diverges)
    search = Search(**{**vars(search), "sampler": "random", "pruner": "none", "trials": 10})
    study = opened(search)
    work(search)
    failed = [t for t in study.trials if t.state.name == "FAIL"]
    assert failed[0].number == 0
    assert failed[0].user_attrs[REASON] == "DivergedError: policy step 3 of 20: loss nan"
    assert len(counted(study)) == 10
    assert any(t.state.name == "COMPLETE" for t in study.trials)


def test_a_trial_without_a_value_in_some_seed_fails_and_its_objective_is_named(
    search: Search, monkeypatch: pytest.MonkeyPatch
):
    def undefined(spec: TrialSpec, arm: ArmConfig, seed: int, *rest) -> dict[str, float]:
        return bowl(spec, arm, seed, *rest) | ({"hacked_share": math.nan} if seed == 1001 else {})

    monkeypatch.setattr(searching, "measure", undefined)
    spec = replace(search.spec, objectives=("clean_success", "hacked_share"))
    search = replace(search, spec=spec, trials=1)
    study = opened(search)
    work(search)
    (trial,) = study.trials
    assert trial.state.name == "FAIL"
    assert trial.user_attrs[REASON] == "ValueError: not finite in some seed: hacked_share"
    assert len(trial.user_attrs[OUTCOMES]) == 2, "its outcomes are kept"


@pytest.mark.parametrize("error", [Interrupted("asked to stop"), OSError(28, "No space left on device")])
def test_what_is_not_the_points_fault_is_given_back_and_run_again(
    search: Search, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fails(*rest, **options):
        raise error

    study = opened(search)
    for _ in range(4):  # more often than a point may cost processes
        monkeypatch.setattr(searching, "measure", fails)
        with pytest.raises(type(error)):
            one_trial(search, lambda done, total: None)
    assert counted(study) == []
    monkeypatch.setattr(searching, "measure", bowl)
    number = one_trial(search, lambda done, total: None)
    again = study.trials[number]
    assert again.params == pytest.approx(search.definition.paper)
    assert again.user_attrs[RETRY] == number - 1
    assert again.user_attrs[SAMPLER] == GIVEN
    assert [t.number for t in counted(study)] == [number]


def test_out_of_memory_is_tried_once_more_with_smaller_parts(search: Search, monkeypatch: pytest.MonkeyPatch):
    sizes = []

    def hungry(*rest, micro: int | None = None):
        sizes.append(micro)
        if micro is None:
            raise MemoryError
        return bowl(*rest)

    monkeypatch.setattr(searching, "measure", hungry)
    study = opened(search)
    one_trial(search, lambda done, total: None)
    assert sizes == [None, SMALLER] * 2
    assert study.trials[0].state.name == "COMPLETE"


def test_progress_of_a_trial_goes_over_its_seeds(search: Search):
    opened(search)
    fractions: list[float] = []
    one_trial(search, lambda done, total: fractions.append(done / total))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) == 8

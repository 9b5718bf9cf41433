"""Tables of a study: the best, the front, importances with their caveat, and the winner on fresh seeds in words."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import create_trial
from rich.console import Console
from searches import filled, search

from ablations.grids import arms
from ablations.rendering.sheet import Column
from rrpo.config import ArmConfig
from studies import fresh
from studies.fresh import CHECKS, Baseline, Fresh, count, verdict
from studies.recovery import RETRY, claim
from studies.results import best, importance, write_trials
from studies.samplers import GIVEN, SAMPLER
from studies.search import OUTCOMES, REASON, Search
from studies.trial import TrialSpec

DEFAULT = Baseline("the default values", arms()["rrpo"])


def test_best_trials_come_first_and_the_papers_trial_is_always_shown(tmp_path: Path):
    """The trial with the default values need not be the first one: the first may have been interrupted."""
    searched = search(tmp_path, "clean_success")
    study = filled(searched)
    table = best(study, searched)
    assert table is not None
    assert (len(table.rows), "paper" in table.notes[0]) == (10, False)
    outcomes = {seed: {"clean_success": 0.0, "kl_token": 0.9} for seed in (1000, 1001)}
    params, space = dict(searched.definition.paper), dict(searched.definition.space)
    study.add_trial(create_trial(params=params, distributions=space, value=0.0, user_attrs={OUTCOMES: outcomes}))
    table = best(study, searched)
    assert table is not None
    assert "Trial 30 has the default values." in table.notes[0]
    gains = [row[1].mean for row in table.rows]  # type: ignore[union-attr]
    assert gains[:10] == sorted(gains[:10], reverse=True)
    assert gains[0] == pytest.approx(study.best_value)
    assert [row[0] for row in table.rows][10:] == ["30"]
    assert table.rows[0][1].n == 2  # type: ignore[union-attr]


def test_how_far_a_policy_went_stands_beside_it_and_not_beside_a_reward_model(tmp_path: Path):
    searched = search(tmp_path, "clean_success")
    table = best(filled(searched, 3), searched)
    assert table is not None
    assert table.columns[-1].heading == "KL, nats/token"
    assert {row[-1].mean for row in table.rows} == {0.905}  # type: ignore[union-attr]
    rm = search(tmp_path, "robustness")
    assert "kl_token" not in {column.name for column in _columns_of(rm)}


def _columns_of(searched: Search) -> tuple[Column, ...]:
    study = optuna.create_study(directions=searched.directions)
    params = dict(searched.definition.paper)
    outcomes = {OUTCOMES: {1000: {"robustness": 0.5}}}
    space = dict(searched.definition.space)
    study.add_trial(create_trial(params=params, distributions=space, value=0.5, user_attrs=outcomes))
    table = best(study, searched)
    assert table is not None
    return table.columns


def test_the_front_holds_no_dominated_trial(tmp_path: Path):
    searched = search(tmp_path, "clean_success", "hacked_share")
    table = best(filled(searched), searched)
    assert table is not None
    front = sorted((row[1].mean, row[2].mean) for row in table.rows if row[0] != "0")  # type: ignore[union-attr]
    assert table.notes[0].endswith("no other trial is at least as good in every objective and better in one.")
    assert all(b[1] > a[1] for a, b in itertools.pairwise(front)), (
        "more clean success costs more hacking along the front"
    )


@pytest.mark.parametrize(
    ("sampler", "words"), [("qmc", "so they cover the space evenly"), ("tpe", "interpret these importances with care")]
)
def test_importance_finds_the_knob_that_matters(tmp_path: Path, sampler: str, words: str):
    searched = search(tmp_path, "clean_success", sampler=sampler)
    table = importance(filled(searched, 60), searched)
    assert table is not None
    assert table.rows[0][0] == "epsilon"
    assert table.row("epsilon")["fanova"] > 0.9  # type: ignore[operator]
    assert any(words in note for note in table.notes)
    assert importance(filled(searched, 5), searched) is None


def test_importance_is_read_from_what_drew_the_trials_not_from_the_last_commands_sampler(tmp_path: Path):
    """Twenty QMC trials in which epsilon matters, then forty of TPE in which only alpha varies."""
    searched = search(tmp_path, "clean_success", sampler="tpe")
    study = filled(search(tmp_path, "clean_success", sampler="qmc"), 20)
    for trial in filled(searched, 40).trials:
        trial.params["epsilon"], trial.values = 0.1, [10 * trial.params["alpha"]]
        study.add_trial(trial)
    table = importance(study, searched)
    assert table is not None
    assert table.rows[0][0] == "epsilon"
    assert "From 20 complete trials" in table.notes[0]
    assert "drawn by qmc" in table.notes[1]


def test_every_trial_is_listed_with_its_state_and_reason(tmp_path: Path):
    searched = search(tmp_path, "clean_success")
    study = filled(searched, 3)
    space = dict(searched.definition.space)
    failed = {"state": optuna.trial.TrialState.FAIL, "params": study.trials[0].params, "distributions": space}
    study.add_trial(create_trial(**failed, user_attrs={REASON: "DivergedError: loss nan"}))
    study.add_trial(create_trial(**failed, user_attrs={}))
    pruned = study.ask(space)
    claim(pruned)
    pruned.report(-0.7, 5)
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    assert study.trials[5].values == [-0.7], "Optuna stores the last intermediate value"
    study.enqueue_trial(study.trials[4].params, user_attrs={RETRY: 4, SAMPLER: GIVEN})
    write_trials(study, tmp_path / "trials.csv")
    table = pd.read_csv(tmp_path / "trials.csv")
    assert [*table["state"]] == ["COMPLETE"] * 3 + ["FAIL", "FAIL", "PRUNED", "WAITING"]
    assert [*table["value"].notna()] == [True] * 3 + [False] * 4, "Optuna's value of a pruned trial is not comparable"
    assert table["value"][2] == pytest.approx(study.trials[2].value)
    assert table["user_attrs_reason"][3] == "DivergedError: loss nan"
    assert table["user_attrs_retry_of"][6] == 4
    assert {"owner", "seen"} <= study.trials[5].user_attrs.keys()
    assert not {"user_attrs_owner", "user_attrs_seen"} & {*table.columns}, "which machine ran it is nobody's business"
    shown = best(study, searched)
    assert shown is not None
    assert "3 complete, 1 fail, 1 lost and run again, 1 pruned, 1 waiting" in shown.notes[0]


@pytest.mark.parametrize(
    ("differences", "objective", "words"),
    [
        ([0.1, 0.11, 0.09], "clean_success", "better than"),  # .1 +- .025
        ([0.1, 0.11, 0.09], "hacked_share", "worse than"),
        ([-0.1, -0.11, -0.09], "hacked_share", "better than"),
        ([0.001, -0.001, 0.0], "clean_success", "equivalent to"),  # 0 +- .0025
        ([0.2, -0.1, 0.05], "clean_success", "not distinguishable from"),  # .05 +- .37
        ([0.25, 0.25, 0.25], "clean_success", "not to be compared (no spread over seeds) with"),
        ([0.0, 0.0, 0.0], "clean_success", "not to be compared (no spread over seeds) with"),
        (
            [-0.055, 0.001, -0.028],
            "clean_success",
            "not distinguishable from",
        ),  # -.027 +- .070: the lower end is beyond
    ],
)
def test_the_winner_on_fresh_seeds_in_words(tmp_path: Path, differences: list[float], objective: str, words: str):
    searched = search(tmp_path, objective, "uptake")
    best_trial = filled(searched, 1).trials[0]
    paper = {2000 + k: {objective: 0.2 * k, "uptake": 0.1} for k in range(3)}
    winner = {2000 + k: {objective: 0.2 * k + x, "uptake": 0.0} for k, x in enumerate(differences)}
    table = verdict(searched, best_trial, DEFAULT, Fresh(winner, paper))
    assert f"On 3 fresh seeds trial 0 is {words} the default values" in table.notes[-1]
    assert table.columns[2].heading == "the default values"
    mean, low, high, n = table.rows[0][3]  # type: ignore[misc]
    half = 4.302653 * np.std(differences, ddof=1) / np.sqrt(3)
    assert (mean, low, high, n) == pytest.approx((np.mean(differences), mean - half, mean + half, 3))


def test_every_further_check_on_the_same_seeds_has_a_smaller_level(tmp_path: Path):
    """A p between .025 and .05 is enough for the first check; not for the second, of a resumed study's new winner."""
    searched = search(tmp_path, "clean_success")
    searched.folder.mkdir(parents=True)
    study = filled(searched, 3)
    x = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]) - 0.04
    paper = {2000 + k: {"clean_success": 0.2} for k in range(6)}
    winner = {2000 + k: {"clean_success": 0.2 + float(value)} for k, value in enumerate(x)}
    notes = []
    for number in (0, 0, 2):
        trial = study.trials[number]
        check = count(searched, study, trial, DEFAULT, winner.keys())
        notes.append(verdict(searched, trial, DEFAULT, Fresh(winner, paper), check))
    assert notes[0] == notes[1], "the same check again"
    assert notes[1].notes[-1] == (
        "On 6 fresh seeds trial 0 is better than the default values by the val judge: +21.0 [+1.4, +40.6] points "
        "(check 1 of this study)."
    )
    assert notes[2].notes[-1] == (
        "On 6 fresh seeds trial 2 is not distinguishable from the default values by the val judge: +21.0 [-3.2, +45.2] points "
        "(check 2 of this study)."
    )
    assert "difference, alpha 0.05: if it excludes 0" in notes[0].notes[0]
    assert "alpha 0.05 / 2 = 0.0250 (Bonferroni over 2 checks" in notes[2].notes[0]
    assert "chance of a false one of up to 0.075" in notes[2].notes[0]
    assert count(searched, study, study.trials[1], DEFAULT, [2000]) == 1, "one seed compares nothing"
    assert count(searched, study, study.trials[2], DEFAULT._replace(name="trial 3 of another"), winner.keys()) == 3
    checks = [(check["trial"], check["rival"]) for check in study.user_attrs[CHECKS]]
    assert checks == [(0, DEFAULT.name), (2, DEFAULT.name), (2, "trial 3 of another")]
    assert {tuple(check["seeds"]) for check in study.user_attrs[CHECKS]} == {tuple(range(2000, 2006))}


def test_sft_and_the_distance_from_it_stand_beside_the_winner(tmp_path: Path):
    """The winner gains .1 over its baseline by staying near SFT, which is better still."""
    searched = search(tmp_path, "clean_success")
    near, far, start = (
        {2000 + k: {"clean_success": clean + 0.01 * k, "kl_token": kl} for k in range(3)}
        for clean, kl in ((0.6, 0.01), (0.5, 0.9), (0.65, 0.0))
    )
    table = verdict(searched, filled(searched, 1).trials[0], DEFAULT, Fresh(near, far, start))
    assert [column.name for column in table.columns][-2:] == ["difference", "sft"]
    assert table.rows[0][-1].mean == pytest.approx(0.66)  # type: ignore[union-attr]
    assert any("KL to SFT, nats/token: trial 0 0.01" in note and "default values 0.9" in note for note in table.notes)


@pytest.mark.parametrize(
    ("objective", "compared", "measured"),
    [
        ("clean_success", ["trial", "default", "SFT"], [2003]),
        ("robustness", ["trial", "default"], [2002, 2003]),
    ],
)
def test_seeds_that_one_arm_did_not_finish_are_measured_for_none_and_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    compared: list[str],
    measured: list[int],
):
    """The trial does not finish on the first seed, its baseline on the second, and SFT, if it is needed, on the third."""

    def name(arm: ArmConfig) -> str:
        return "SFT" if arm.steps == 0 else "default" if arm == DEFAULT.arm else "trial"

    def stages(spec: TrialSpec, arm: ArmConfig, seed: int) -> list[SimpleNamespace]:
        finished = seed != {"trial": 2000, "default": 2001, "SFT": 2002}[name(arm)]
        title = f"{name(arm)} {seed}"
        return [SimpleNamespace(title=title, done=lambda store, done=done: done) for done in (True, finished)]

    def build(stages: list[SimpleNamespace]) -> dict[str, str]:
        return {stage.title: "killed" for stage in stages if not stage.done(tmp_path)}

    monkeypatch.setattr(TrialSpec, "stages", stages)
    monkeypatch.setattr(Search, "builder", lambda *_: SimpleNamespace(build=build))
    monkeypatch.setattr(fresh, "measure", lambda spec, arm, seed: {name(arm): seed})
    best_trial = filled(search(tmp_path, "clean_success"), 1).trials[0]
    searched = replace(search(tmp_path, objective), verify=4)
    result = fresh.evaluate(searched, best_trial, DEFAULT, Console(file=StringIO()))
    outcomes = [{seed: {arm: seed} for seed in measured} for arm in compared]
    assert [result.best, result.baseline, *([] if result.sft is None else [result.sft])] == outcomes
    failures = ["trial 2000: killed", "default 2001: killed", "SFT 2002: killed"]
    assert set(result.missing.split("; ")) == set(failures[: len(compared)])


@pytest.mark.parametrize(("value", "named"), [(0.0, True), (0.299, True), (0.15, False)])
def test_a_best_value_at_an_end_of_its_range_is_named(tmp_path: Path, value: float, named: bool):
    searched = search(tmp_path, "clean_success")
    params, space = dict(searched.definition.paper), dict(searched.definition.space)
    params |= {"mix_probability": 0.5, "epsilon": value}
    study = optuna.create_study(directions=searched.directions)
    outcomes = {seed: {"clean_success": 0.5, "kl_token": 0.9} for seed in (1000, 1001)}
    study.add_trial(create_trial(params=params, distributions=space, value=0.5, user_attrs={OUTCOMES: outcomes}))
    table = best(study, searched)
    assert table is not None
    assert ("In trial 0, at an end of their range: epsilon." in table.notes[0]) == named


def test_a_value_that_is_not_finite_on_a_fresh_seed_decides_nothing(tmp_path: Path):
    """Without the third seed, on which the best trial has no value, its interval would be .1 +- .064."""
    searched = search(tmp_path, "clean_success")
    paper = {2000: {"clean_success": 0.2}, 2001: {"clean_success": 0.3}, 2002: {"clean_success": 0.4}}
    winner = {seed: {"clean_success": paper[seed]["clean_success"] + x} for seed, x in ((2000, 0.095), (2001, 0.105))}
    trial = filled(searched, 1).trials[0]
    assert "is better than" in verdict(searched, trial, DEFAULT, Fresh(winner, paper)).notes[-1]
    table = verdict(searched, trial, DEFAULT, Fresh(winner | {2002: {"clean_success": math.nan}}, paper))
    assert "On 3 fresh seeds trial 0 is not to be compared with the default values" in table.notes[-1]
    assert "Nothing is decided, because values are not finite." in table.notes


def test_seeds_that_failed_are_named_in_the_verdict(tmp_path: Path):
    searched = search(tmp_path, "clean_success")
    values = {2000: {"clean_success": 0.1}, 2001: {"clean_success": 0.2}}
    trial = filled(searched, 1).trials[0]
    table = verdict(searched, trial, DEFAULT, Fresh(values, values, missing="SFT seed 2002: killed by SIGKILL"))
    assert any(
        "Nothing is decided, because seeds are missing: SFT seed 2002: killed by SIGKILL" in note
        for note in table.notes
    )
    assert "not to be compared" in table.notes[-1]
    one_seed = verdict(searched, trial, DEFAULT, Fresh({2000: values[2000]}, {2000: values[2000]}))
    assert "not to be compared" in one_seed.notes[-1]

"""Tables of a study: the best, the front, importances with their caveat, and the winner on fresh seeds in words."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import create_trial

from ablations.sheet import Column
from rrpo.profiles import SMOKE
from studies.fresh import CHECKS, count, verdict
from studies.recovery import RETRY
from studies.results import best, everything, importance, pareto, short
from studies.samplers import GIVEN, SAMPLER
from studies.search import OUTCOMES, REASON, Search
from studies.trial import Question


def search(tmp_path: Path, *objectives: str, sampler: str = "qmc") -> Search:
    question = Question(profile=SMOKE, store=tmp_path, seeds=(1000, 1001), objectives=objectives)
    return Search(study="regularizers", name="s", question=question, trials=30, sampler=sampler)


def filled(searched: Search, trials: int = 30) -> optuna.Study:
    """Trials whose first objective rises with epsilon alone, the second with alpha."""
    study = optuna.create_study(directions=searched.directions)
    rng = np.random.default_rng(0)
    space = dict(searched.definition.space)
    for _ in range(trials):
        params = {name: float(rng.uniform(d.low, d.high)) for name, d in space.items()}
        gain = params["epsilon"] + 0.001 * rng.standard_normal()
        own = {"gold_gain": gain, "hack_rate": params["alpha"] / 2, "uptake": 0.0, "moved": 0.9}
        outcomes = {1000: own, 1001: {name: value + 0.01 for name, value in own.items()}}
        values = [float(np.mean([o[name] for o in outcomes.values()])) for name in searched.question.objectives]
        attrs = {OUTCOMES: outcomes, SAMPLER: searched.sampler}
        study.add_trial(create_trial(params=params, distributions=space, values=values, user_attrs=attrs))
    return study


def test_best_trials_come_first_and_the_papers_trial_is_always_shown(tmp_path: Path):
    searched = search(tmp_path, "gold_gain")
    study = filled(searched)
    made = best(study, searched)
    assert made is not None
    gains = [row[1].mean for row in made.rows]  # type: ignore[union-attr]
    assert gains[:10] == sorted(gains[:10], reverse=True)
    assert gains[0] == pytest.approx(study.best_value)
    assert "0" in [row[0] for row in made.rows]
    assert made.rows[0][1].n == 2  # type: ignore[union-attr]


def test_trials_that_moved_little_are_named_with_what_it_means(tmp_path: Path):
    searched = search(tmp_path, "gold_gain")
    study = filled(searched, 3)
    made = best(study, searched)
    assert made is not None
    assert made.columns[-1].heading == "moved, DiffRO = 1"
    assert {row[-1].mean for row in made.rows} == {0.905}  # type: ignore[union-attr]
    assert not any("moved less" in note for note in made.notes)
    few = study.trials[1]
    for own, moved in zip(few.user_attrs[OUTCOMES].values(), (0.6, 0.9), strict=True):
        own["moved"] = moved
    study.add_trial(few)
    made = best(study, searched)
    assert made is not None
    assert made.row("3")["moved"].mean == pytest.approx(0.75)  # type: ignore[union-attr]
    assert made.notes[-1].startswith("Trial 3 moved less than 0.8 times as far as DiffRO: it keeps its last accuracy")
    assert short([few], search(tmp_path, "uptake")) == "", "the words are about the gold gain"
    rm = search(tmp_path, "robustness")
    assert "moved" not in {column.name for column in _columns_of(rm)}


def _columns_of(searched: Search) -> tuple[Column, ...]:
    study = optuna.create_study(directions=searched.directions)
    params = dict(searched.definition.paper)
    outcomes = {OUTCOMES: {1000: {"robustness": 0.5}}}
    space = dict(searched.definition.space)
    study.add_trial(create_trial(params=params, distributions=space, value=0.5, user_attrs=outcomes))
    made = best(study, searched)
    assert made is not None
    return made.columns


def test_the_front_holds_no_dominated_trial(tmp_path: Path):
    searched = search(tmp_path, "gold_gain", "hack_rate")
    made = pareto(filled(searched), searched)
    assert made is not None
    front = sorted((row[1].mean, row[2].mean) for row in made.rows)  # type: ignore[union-attr]
    assert all(b[1] > a[1] for a, b in itertools.pairwise(front)), "more gold costs more hacking along the front"
    assert pareto(filled(search(tmp_path, "gold_gain")), search(tmp_path, "gold_gain")) is None


@pytest.mark.parametrize(("sampler", "words"), [("qmc", "cover the space evenly"), ("tpe", "read these with care")])
def test_importance_finds_the_knob_that_matters(tmp_path: Path, sampler: str, words: str):
    searched = search(tmp_path, "gold_gain", sampler=sampler)
    made = importance(filled(searched, 60), searched)
    assert made is not None
    assert made.rows[0][0] == "epsilon"
    assert made.row("epsilon")["fanova"] > 0.9  # type: ignore[operator]
    assert made.row("epsilon")["ped_anova"] > 0.5  # type: ignore[operator]
    assert any(words in note for note in made.notes)
    assert importance(filled(searched, 5), searched) is None


def test_importance_is_read_from_what_drew_the_trials_not_from_the_last_commands_sampler(tmp_path: Path):
    """Twenty QMC trials in which epsilon matters, then forty of TPE in which only alpha varies."""
    searched = search(tmp_path, "gold_gain", sampler="tpe")
    study = filled(search(tmp_path, "gold_gain", sampler="qmc"), 20)
    for trial in filled(searched, 40).trials:
        trial.params["epsilon"], trial.values = 0.1, [10 * trial.params["alpha"]]
        study.add_trial(trial)
    made = importance(study, searched)
    assert made is not None
    assert made.rows[0][0] == "epsilon"
    assert "From 20 complete trials" in made.notes[0]
    assert "drawn by qmc" in made.notes[1]


def test_every_trial_is_listed_with_its_state_and_reason(tmp_path: Path):
    searched = search(tmp_path, "gold_gain")
    study = filled(searched, 3)
    space = dict(searched.definition.space)
    failed = {"state": optuna.trial.TrialState.FAIL, "params": study.trials[0].params, "distributions": space}
    study.add_trial(create_trial(**failed, user_attrs={REASON: "DivergedError: loss nan"}))
    study.add_trial(create_trial(**failed, user_attrs={}))
    pruned = study.ask(space)
    pruned.report(-0.7, 5)
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    assert study.trials[5].values == [-0.7], "Optuna's: the last look"
    study.enqueue_trial(study.trials[4].params, user_attrs={RETRY: 4, SAMPLER: GIVEN})
    stuck = study.trials[1]
    stuck.set_constraint("moved", 0.05)
    study.add_trial(stuck)
    made = everything(study, searched)
    assert made is not None
    states = [row[1] for row in made.rows]
    assert states == ["complete"] * 3 + ["fail", "lost and run again", "pruned", "waiting", "infeasible"]
    assert [made.row(number)["gold_gain"] for number in ("4", "5")] == pytest.approx([math.nan] * 2, nan_ok=True)
    assert made.row("2")["gold_gain"] == study.trials[2].value
    assert made.row("3")["reason"] == "DivergedError: loss nan"
    assert "1 infeasible" in made.notes[0]
    shown = best(study, searched)
    assert shown is not None
    assert len(shown.rows) == 3, "an infeasible trial is never among the best"


@pytest.mark.parametrize(
    ("shift", "noise", "objective", "words"),
    [
        (0.1, 0.01, "gold_gain", "better than"),
        (0.1, 0.01, "hack_rate", "worse than"),
        (0.0, 0.002, "gold_gain", "equivalent to"),
        (0.02, 0.1, "gold_gain", "not distinguishable from"),
    ],
)
def test_the_winner_on_fresh_seeds_in_words(tmp_path: Path, shift: float, noise: float, objective: str, words: str):
    rng = np.random.default_rng(0)
    searched = search(tmp_path, objective, "uptake")
    best_trial = filled(searched, 1).trials[0]
    paper = {seed: {objective: 0.2 + 0.05 * float(rng.standard_normal()), "uptake": 0.1} for seed in range(2000, 2006)}
    winner = {
        seed: {objective: own[objective] + shift + noise * float(rng.standard_normal()), "uptake": 0.0}
        for seed, own in paper.items()
    }
    made = verdict(searched, best_trial, winner, paper)
    assert f"trial 0 is {words} the paper's values" in made.notes[-1]
    assert "6 fresh seeds" in made.notes[-1]
    assert [isinstance(row[4], float) and row[4] == row[4] for row in made.rows] == [True, False], "one comparison"


def test_every_further_check_on_the_same_seeds_has_a_smaller_level(tmp_path: Path):
    """A p between .025 and .05 is enough for the first check; not for the second, of a resumed study's new winner."""
    searched = search(tmp_path, "gold_gain")
    searched.folder.mkdir(parents=True)
    study = filled(searched, 3)
    x = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]) - 0.04
    paper = {2000 + k: {"gold_gain": 0.2} for k in range(6)}
    winner = {2000 + k: {"gold_gain": 0.2 + float(value)} for k, value in enumerate(x)}
    said = []
    for number in (0, 0, 2):
        trial = study.trials[number]
        check = count(searched, study, trial, winner.keys())
        made = verdict(searched, trial, winner, paper, check=check)
        said.append(made)
    p = said[0].rows[0][4]
    assert isinstance(p, float)
    assert 0.025 < p < 0.05
    assert said[0] == said[1], "the same check again"
    assert said[1].notes[-1] == (
        "On 6 fresh seeds trial 0 is better than the paper's values by the `val` judge (check 1 on these seeds)."
    )
    assert said[2].notes[-1] == (
        "On 6 fresh seeds trial 2 is not distinguishable from the paper's values by the `val` judge (check 2 on these seeds)."
    )
    assert "two-sided, alpha 0.05; TOST" in said[0].notes[0]
    assert "alpha 0.05 / 2 = 0.0250 (Bonferroni over 2 checks" in said[2].notes[0]
    assert "chance of a false one of up to 0.075" in said[2].notes[0]
    assert count(searched, study, study.trials[1], [2000]) == 1, "one seed compares nothing"
    assert count(searched, study, study.trials[1], winner.keys()) == 3
    assert study.user_attrs[CHECKS] == [{"trial": n, "seeds": list(range(2000, 2006))} for n in (0, 2, 1)]


def test_seeds_that_failed_are_named_in_the_verdict(tmp_path: Path):
    searched = search(tmp_path, "gold_gain")
    values = {2000: {"gold_gain": 0.1}, 2001: {"gold_gain": 0.2}}
    made = verdict(searched, filled(searched, 1).trials[0], values, values, "SFT seed 2002: killed by SIGKILL")
    assert any("Seeds are missing: SFT seed 2002: killed by SIGKILL" in note for note in made.notes)
    one = verdict(searched, filled(searched, 1).trials[0], {2000: values[2000]}, {2000: values[2000]})
    assert "not to be compared" in one.notes[-1]

"""Tables of a study: the best, the front, importances with their caveat, and the winner on fresh seeds in words."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import create_trial

from rrpo.profiles import SMOKE
from studies.results import best, importance, pareto, verdict
from studies.search import OUTCOMES, Search
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
        own = {"gold_gain": gain, "hack_rate": params["alpha"] / 2}
        outcomes = {1000: own, 1001: {name: value + 0.01 for name, value in own.items()}}
        values = [float(np.mean([o[name] for o in outcomes.values()])) for name in searched.question.objectives]
        study.add_trial(
            create_trial(params=params, distributions=space, values=values, user_attrs={OUTCOMES: outcomes})
        )
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


@pytest.mark.parametrize(
    ("shift", "noise", "direction", "words"),
    [
        (0.1, 0.01, "maximize", "better than"),
        (0.1, 0.01, "minimize", "worse than"),
        (0.0, 0.002, "maximize", "equivalent to"),
        (0.02, 0.1, "maximize", "not distinguishable from"),
    ],
)
def test_the_winner_on_fresh_seeds_in_words(shift: float, noise: float, direction: str, words: str):
    rng = np.random.default_rng(0)
    paper = {seed: 0.2 + 0.05 * float(rng.standard_normal()) for seed in range(2000, 2006)}
    winner = {seed: value + shift + noise * float(rng.standard_normal()) for seed, value in paper.items()}
    made = verdict("gold_gain", direction, winner, paper)
    assert words in made.notes[-1]
    assert "6 fresh seeds" in made.notes[-1]

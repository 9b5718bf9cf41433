"""Points are keyed by seed and trial number: no process, no order of asking moves them; every sampler works on every space."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution

from studies.catalogue import policy, regularizers
from studies.samplers import POPULATION, SAMPLERS, STARTUP, Keyed

SPACE = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0.01, 1, log=True)}


def sampled_points(name: str, seed: int = 0, trials: int = 12, restart: bool = False) -> list[dict[str, float]]:
    """Points of a search for the middle of both ranges; ``restart`` opens the study anew for each, as other workers do."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="s")
    points = []
    study = optuna.load_study(study_name="s", storage=storage, sampler=Keyed(name, seed))
    for _ in range(trials):
        if restart:
            study = optuna.load_study(study_name="s", storage=storage, sampler=Keyed(name, seed))
        trial = study.ask(SPACE)
        study.tell(trial, (trial.params["a"] - 0.5) ** 2 + (trial.params["b"] - 0.5) ** 2)
        points.append(trial.params)
    return points


@pytest.mark.parametrize("name", SAMPLERS)
def test_who_asks_does_not_matter_and_the_seed_does(name: str):
    points = sampled_points(name)
    assert sampled_points(name, restart=True) == points
    assert len({tuple(point.values()) for point in points}) == len(points), "no point twice"
    assert sampled_points(name, seed=1) != points


def test_the_order_of_asking_does_not_matter_to_a_random_design():
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="s")
    first, second = (optuna.load_study(study_name="s", storage=storage, sampler=Keyed("random", 0)) for _ in range(2))
    trials = [first.ask(SPACE), second.ask(SPACE), second.ask(SPACE), first.ask(SPACE)]
    assert [trial.params for trial in trials] == sampled_points("random", trials=4)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("definition", [regularizers(), policy()], ids=lambda study: study.name)
def test_every_sampler_works_with_its_model_on_every_kind_of_space(name: str, definition):
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=Keyed(name, 0))
    for index in range(POPULATION + 3 if name == "nsga3" else STARTUP + 2):
        trial = study.ask(dict(definition.space))
        trial.set_constraint("moved", -1.0 if index % 2 else 1.0)
        study.tell(trial, (index, -index))
        for knob, distribution in definition.space.items():
            assert distribution._contains(distribution.to_internal_repr(trial.params[knob]))

"""The median pruner on curves by hand, and what is reported to a pruner."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from rrpo.profiles import SMOKE
from studies.pruning import MedianNow, pruning_callback
from studies.samplers import STARTUP
from studies.trial import TrialSpec


def study_of(direction: str, complete: int) -> optuna.Study:
    """Trials that all start at .6 and end between .40 and .47, and pruned ones that must not count."""
    study = optuna.create_study(direction=direction)
    for k in range(complete):
        study.add_trial(create_trial(value=0.0, intermediate_values={0: 0.6, 10: 0.4 + 0.01 * k}))
    for _ in range(20):
        study.add_trial(create_trial(state=TrialState.PRUNED, value=0.9, intermediate_values={0: 0.6, 10: 0.9}))
    return study


def trial(*curve: tuple[int, float]) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, intermediate_values=dict(curve))


@pytest.mark.parametrize(("direction", "low", "high"), [("maximize", True, False), ("minimize", False, True)])
def test_a_trial_is_judged_by_its_present_value_and_not_by_its_best(direction: str, low: bool, high: bool):
    study, pruner = study_of(direction, STARTUP), MedianNow(warm_up=10)
    assert pruner.prune(study, trial((0, 0.6), (10, 0.43))) == low, "the median at this step is .435"
    assert pruner.prune(study, trial((0, 0.6), (10, 0.44))) == high
    below = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=10)
    assert direction == "minimize" or not below.prune(study, trial((0, 0.6), (10, 0.1))), "Optuna's prunes nothing here"


def test_nothing_is_pruned_early_or_without_enough_trials():
    pruner = MedianNow(warm_up=10)
    assert not pruner.prune(study_of("maximize", STARTUP), trial())
    assert not pruner.prune(study_of("maximize", STARTUP), trial((0, 0.1)))
    assert not pruner.prune(study_of("maximize", STARTUP - 1), trial((10, 0.1)))


def test_the_first_seeds_looks_are_reported_as_means_of_three(tmp_path: Path):
    reported: dict[int, float] = {}
    stub = SimpleNamespace(
        report=lambda value, step: reported.update({step: value}), should_prune=lambda: 20 in reported
    )
    spec = TrialSpec(profile=SMOKE, store=tmp_path, seeds=(1000, 1001), objectives=("clean_success",))
    first, second = (pruning_callback("median", spec, stub, first) for first in (True, False))  # type: ignore[arg-type]
    for step, value in {0: 0.0, 5: 3.0, 10: math.nan, 15: 6.0}.items():
        first(step, {"val_clean": value, "val_accuracy": 0.5})
        second(step, {"val_clean": 1.0})
    with pytest.raises(optuna.TrialPruned):
        first(20, {"val_clean": 9.0})
    assert reported == {0: 0.0, 5: 1.5, 15: 3.0, 20: 6.0}

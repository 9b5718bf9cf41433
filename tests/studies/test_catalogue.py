"""Named studies: no conditional space, off at identity, the paper's values inside, development seeds and the `val` judge only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from ablations.grids import arms
from rrpo.config import ArmConfig, OptimizeConfig, RegularizerConfig
from rrpo.errors import InputError
from rrpo.experiment import dataflow, world
from rrpo.pipeline.stages import walk
from rrpo.profiles import EMBEDDED, SMOKE
from rrpo.regularizers import REGULARIZERS, Regularizer, strength
from studies import catalogue
from studies.catalogue import (
    STUDIES,
    Study,
    contains,
    policy,
    regularizer_config,
    regularizers,
    study_of,
    tunable,
    tune_arm,
)
from studies.trial import OBJECTIVES, TrialSpec

ALL = [*(make() for make in STUDIES.values()), *(tune_arm(arm) for arm in tunable())]


@pytest.mark.parametrize("study", ALL, ids=lambda study: study.name)
class TestContract:
    """Properties of every study."""

    def test_the_papers_values_lie_in_the_space(self, study: Study):
        assert study.paper.keys() == study.space.keys()
        for name, distribution in study.space.items():
            assert contains(distribution, study.paper[name]), name

    def test_the_test_judge_is_never_asked_for(self, study: Study, tmp_path):
        spec = TrialSpec(profile=SMOKE, store=tmp_path, seeds=(1000, 1001), objectives=tuple(OBJECTIVES))
        stages = [s for seed in spec.seeds for s in walk(*spec.stages(study.arm(study.paper), seed))]
        names = {stage.name for stage in stages}
        assert {"assess", "examine"} <= names
        assert names & {"optimize", "guided", "best_of_n"}
        assert "score" not in {stage.name for stage in stages}
        assert world.judge(SMOKE, "test").key not in {stage.key for stage in stages}

    def test_objectives_are_known(self, study: Study):
        assert set(study.objectives) <= set(OBJECTIVES)


def test_the_papers_point_is_the_rrpo_arm_and_zeros_are_vanilla():
    study = regularizers()
    assert study.arm(study.paper) == arms()["rrpo"]
    off = study.arm(dict(study.paper) | {"epsilon": 0.0, "alpha": 0.0, "mix_probability": 0.0}).regularizers
    assert (off.epsilon, off.alpha, off.mix_probability) == (0.0, 0.0, 0.0)
    assert {name: study.space[name].low for name in ("epsilon", "alpha", "mix_probability")} == dict.fromkeys(
        ("epsilon", "alpha", "mix_probability"), 0.0
    )


def test_a_fourth_components_knob_is_searched_from_where_it_is_off(no_plugins: Callable[[], None]):
    REGULARIZERS.register("x", Fourth())
    study, tuned = study_of("regularizers"), study_of("tune-arm", "ls_x")
    assert study.arm(study.paper) == arms()["rrpo"]
    (added,) = study.arm(dict(study.paper) | {"x.alpha": 1.0}).regularizers.added
    assert dict(added.options) == {"alpha": 1.0, "width": 1.0}
    assert set(tuned.space) - {"lr", "beta"} == {"epsilon", "x.alpha", "x.width"}
    assert tuned.arm(tuned.paper).regularizers == arms()["ls_x"].regularizers
    assert tune_arm("ls").arm(tune_arm("ls").paper).regularizers == arms()["ls"].regularizers


@dataclass(frozen=True, kw_only=True)
class Fourth(Regularizer):
    """A component whose strength has the same name as one of Adv's."""

    label = "X"
    alpha: float = strength(2.0, off=0.0, search=(0.0, 5.0))
    width: float = strength(1.0, search=(0.5, 2.0))


def test_the_db_range_opens_around_its_centre():
    study = regularizers()
    config = study.arm(dict(study.paper) | {"mix_db_centre": 2.0, "mix_db_width": 6.0}).regularizers
    assert (config.mix_db_low, config.mix_db_high) == (-1.0, 5.0)


def test_the_policys_knobs_reach_its_stage_and_only_it():
    knobs = dict(policy().paper) | {"lr": 0.004, "tau": "2-1"}
    tuned, plain = (dataflow.optimized(SMOKE, arm, 1000) for arm in (policy().arm(knobs), arms()["rrpo"]))
    assert tuned.config.lr == 0.004
    assert tuned.config.tau == (2.0, 1.0)
    assert tuned.inputs["reward_model"].key == plain.inputs["reward_model"].key
    assert dataflow.optimized(SMOKE, policy().arm(policy().paper), 1000).config.beta == plain.config.beta


@pytest.mark.parametrize(
    "name", ["policy", *(f"tune-{arm}" for arm in ("diffro", "rrpo", "best_of_16", "diffro_multitask", "emodiff"))]
)
def test_the_first_trial_is_the_arm_of_the_grids(name: str):
    """The profile's learning rate, beta and content weight are not the defaults of their config."""
    arm = name.removeprefix("tune-")
    study = study_of("policy" if name == "policy" else "tune-arm", arm * (name != "policy"), (), EMBEDDED.optimize)
    config = arms()["rrpo" if name == "policy" else arm]
    built, plain = (dataflow.optimized(EMBEDDED, each, 1000) for each in (study.arm(study.paper), config))
    assert built.key == plain.key
    assert EMBEDDED.optimize.beta != OptimizeConfig().beta


@pytest.mark.parametrize("arm", tunable())
def test_tuning_an_arm_keeps_what_is_off_off(arm: str):
    study = tune_arm(arm)
    tuned = study.arm(study.paper).regularizers
    config = arms()[arm].regularizers
    assert tuned == config
    for name in ("epsilon", "mix_probability", "alpha"):
        assert (getattr(tuned, name) > 0) == (getattr(config, name) > 0)
    assert ("epsilon" in study.space) == (config.epsilon > 0 and arms()[arm].finetune)
    decoded = arms()[arm].guidance or arms()[arm].best_of
    assert ({"lr", "beta"} <= set(study.space)) == (not decoded)
    assert study.arm(study.paper).finetune == arms()[arm].finetune


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("diffro", set()),
        ("grpo", {"grpo.samples", "grpo.epochs", "grpo.clip"}),
        ("emo-dpo-samples", {f"emo-dpo.{name}" for name in ("dpo_beta", "dpo_weight", "kl_weight", "sft_weight")}),
        ("rm_mean_variance", {"variance_penalty"}),
        ("diffro_multitask", {"emotion_weight", "content_weight"}),
        ("diffro_tau", {"tau"}),
        ("emodiff", {"soft-label.gamma"}),
        ("emomix_style", {"style_weight"}),
        ("best_of_16", {"content_weight"}),
    ],
)
def test_every_system_is_tuned_by_what_it_alone_has(arm: str, expected: set[str]):
    """All other settings of the arm are kept. The first trial is the arm itself, with the profile's learning rate and beta."""
    study, config = tune_arm(arm), arms()[arm]
    assert set(study.space) - {"lr", "beta"} == expected
    first, moved = study.arm(study.paper), study.arm(study.elsewhere)
    keep = {"lr": None, "beta": None} | ({"content_weight": None} if config.best_of else {})
    assert replace(first, **keep) == config
    assert first != moved
    changed = {*expected} & {"variance_penalty", "emotion_weight", "content_weight", "tau", "style_weight"}
    assert all(getattr(moved, name) != getattr(first, name) for name in changed)


def test_every_tunable_arm_has_a_study_whose_ranges_the_arm_accepts():
    for arm in tunable():
        assert study_of("tune-arm", arm, (), SMOKE.optimize).name == f"tune-{arm}"


def test_an_optimisers_other_options_stay_what_the_arm_has():
    study = tune_arm("emo-dpo-samples")
    options = dict(study.arm(dict(study.paper) | {"emo-dpo.dpo_beta": 0.5}).optimizer.options)
    assert (options["dpo_beta"], options["pairs"], options["tags"]) == (0.5, "samples", "requested")
    grpo = study_of("tune-arm", "grpo", [("grpo.clip", 0.1, 0.3)])
    assert grpo.space["grpo.clip"] == FloatDistribution(0.1, 0.3, log=True)
    assert dict(grpo.arm(dict(grpo.paper) | {"grpo.samples": 8}).optimizer.options)["samples"] == 8


def test_controls_and_what_has_no_strength_are_not_tuned():
    assert not {"sft", "placebo", "content_only", "no_content", "diffro_scaled", "diffro_kl", "emomix"} & set(tunable())
    assert {"sft", "emomix"} < set(arms())


def test_a_controls_strengths_are_searched_beside_the_push():
    study = tune_arm("mixup")
    assert study.space.keys() == {"mixup.share", "mixup.shape", "lr", "beta"}
    (added,) = study.arm({**study.paper, "mixup.shape": 1.0}).regularizers.added
    assert (added.name, dict(added.options)) == ("mixup", {"share": 1.0, "shape": 1.0})
    assert tune_arm("rm_worst").arm(tune_arm("rm_worst").paper).members == arms()["rm_worst"].members
    assert tune_arm("soft_votes").arm(tune_arm("soft_votes").paper).regularizers.soft_votes


def test_defaults_are_the_papers():
    paper = RegularizerConfig()
    assert (paper.epsilon, paper.alpha, paper.epsilon_adv) == (0.1, 0.5, 0.5)


def test_a_study_of_ones_own_is_one_short_function(monkeypatch: pytest.MonkeyPatch):
    def smoothing() -> Study:
        space = {"epsilon": FloatDistribution(0.0, 0.3)}
        return Study(
            "smoothing", space, {"epsilon": 0.1}, lambda knobs: ArmConfig(regularizers=regularizer_config(knobs))
        )

    monkeypatch.setitem(STUDIES, "smoothing", smoothing)
    study = study_of("smoothing", "", [("epsilon", 0.05, 0.2)])
    assert study.space == {"epsilon": FloatDistribution(0.05, 0.2)}
    assert study.arm({"epsilon": 0.05}).regularizers.epsilon == 0.05


@pytest.mark.parametrize(
    ("space", "paper", "words"),
    [
        ({"epsilon": FloatDistribution(0, 0.3)}, {"alpha": 0.5}, "0.0..0.3 without None"),
        ({"epsilon": FloatDistribution(0, 0.3)}, {"epsilon": 0.5}, "does not contain the baseline value"),
        ({"epsilon": FloatDistribution(0, 1.5)}, {"epsilon": 0.5}, "epsilon must be finite and within 0 to 1, got 1.5"),
        (
            {"mix_probability": FloatDistribution(-1, 1)},
            {"mix_probability": 1.0},
            "mix_probability must be finite and within 0 to 1, got -1.0",
        ),
        ({"tau": CategoricalDistribution(["1"])}, {"tau": "2"}, "does not contain the baseline value"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, space, paper, words: str):
    odd = Study("odd", space, paper, lambda knobs: ArmConfig(regularizers=regularizer_config(knobs)))
    monkeypatch.setitem(STUDIES, "odd", lambda: odd)
    with pytest.raises(InputError) as caught:
        study_of("odd")
    assert words in str(caught.value)


def test_a_range_that_its_own_function_turns_round_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(
        STUDIES,
        "odd",
        lambda: Study("odd", {"epsilon": FloatDistribution(0.3, 0.0)}, {"epsilon": 0.1}, lambda knobs: arms()["rrpo"]),
    )
    with pytest.raises(InputError, match="a range is invalid"):
        study_of("odd")


@pytest.mark.parametrize("study", ALL, ids=lambda study: study.name)
def test_elsewhere_shares_no_value_with_the_paper(study: Study):
    assert all(study.elsewhere[knob] != study.paper[knob] for knob in study.space)
    study.arm(study.elsewhere)


def test_a_range_can_fix_a_value():
    study = study_of("regularizers", "", [("epsilon", 0.1, 0.1)])
    assert study.elsewhere["epsilon"] == study.paper["epsilon"] == 0.1
    assert study.elsewhere["alpha"] != study.paper["alpha"]


def test_both_of_the_reward_models_aims_are_searched():
    assert catalogue.rm().objectives == ("cross_language", "robustness")

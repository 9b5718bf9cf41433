"""Measurements of a cell: the stages that examine its reward model and those that judge its policy's stored samples.

`core` are the stages of a cell's record, the same on every machine. Stages that need an optional package are not among them and
affect none of their keys (`optional`). What is trained is in `rrpo.experiment.dataflow`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from rrpo.config import ArmConfig, GradientsConfig, ReferenceProbeConfig
from rrpo.corpus.tags import NEUTRAL
from rrpo.experiment import dataflow, world
from rrpo.identity import content_hash
from rrpo.judges.config import (
    CONTENT,
    LISTENERS,
    ContentConfig,
    IntensityConfig,
    MeasureConfig,
    NoSettings,
    RecognitionConfig,
)
from rrpo.judges.protocol import JUDGES, OpinionConfig
from rrpo.packages import present
from rrpo.pipeline.stages import Stage
from rrpo.plugins import Choice
from rrpo.profiles import Profile
from rrpo.regularizers import REGULARIZERS


@cache
def examined(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return accuracies and manipulation checks of one arm's RM."""
    inputs = world.rm_tests(profile) | {"model": dataflow.reward_model(profile, arm, seed)}
    return Stage.of("examine", profile.examine, inputs, f"RM examination seed {seed}")


@cache
def assessed(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return per-sample assessments of one cell's stored samples that a search may use: everything but the `test` judge."""
    inputs = dataflow.stored_samples(profile, arm, seed) | {
        "val": world.judge(profile, "val"),
        "recogniser": world.recogniser(profile, "judge"),
    }
    if arm != (start := dataflow.sft_arm_of(arm)):
        inputs |= {"sft": assessed(profile, start, seed), "sft_samples": dataflow.optimized(profile, start, seed)}
    return Stage.of("assess", NoSettings(), inputs, f"assessment seed {seed}")


def scored(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the test judges' results on one cell's stored samples and its audio; samples shared with SFT are not judged
    again."""
    inputs = dataflow.stored_samples(profile, arm, seed) | {
        "test": world.judge(profile, "test"),
        "recogniser": world.recogniser(profile, "judge"),
        "common": dataflow.pretrained(profile, dataflow.SFT, seed),
    }
    if arm != (start := dataflow.sft_arm_of(arm)):
        inputs |= {"sft": scored(profile, start, seed), "sft_samples": dataflow.optimized(profile, start, seed)}
    return Stage.of("score", profile.score, inputs, f"test judges seed {seed}")


def vocoded(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return some of one cell's stored samples as waves."""
    return Stage.of("vocode", profile.vocode, dataflow.stored_samples(profile, arm, seed), f"waveforms seed {seed}")


def listener_results(profile: Profile, arm: ArmConfig, seed: int, name: str) -> Stage:
    """Return the results of one of `LISTENERS` on a cell's vocoded samples; needs the listener's packages."""
    content = (
        ContentConfig(recogniser=name, language=profile.world.language, prompts=profile.content_prompts),
        {"eval_prompts": world.eval_prompts(profile)},
    )
    kind, config, reference = {
        "phonetics": ("phonetics", NoSettings(), {"third": world.third_judge(profile)}),
        "voice": ("voice", NoSettings(), {"speakers": _voices(profile, arm)}),
        "naturalness": ("naturalness", profile.naturalness, {"predictor": world.predictor(profile)}),
    }.get(name, ("content", *content))
    inputs = {"waves": vocoded(profile, arm, seed)} | reference
    start = dataflow.sft_arm_of(arm)
    policies = {dataflow.starting_policy(profile, each, seed).key for each in (arm, start)}
    # without updates, as in guided decoding, step 0 is of the arm's own policy
    own = arm.guidance is not None or (arm.steps == 0 and len(policies) > 1)
    if arm != start and not own:
        inputs["sft"] = listener_results(profile, start, seed, name)
    return Stage.of(kind, config, inputs, f"{name} seed {seed}")


def _voices(profile: Profile, arm: ArmConfig) -> Stage:
    """Return the mean voices of the speakers of an arm's prompts."""
    speakers = world.speakers(profile)
    if arm.reversal is None:
        return speakers
    return replace(speakers, inputs={**speakers.inputs, "speech": dataflow.references(profile)})


def intensity(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return how strongly a cell's stored samples carry the target emotion and each other emotion."""
    neutral = (
        world.world_speech(dataflow.with_neutral(profile), "sft_heldout")
        if arm.reversal is None
        else dataflow.references(profile)
    )
    inputs = dataflow.stored_samples(profile, arm, seed) | {"test": world.judge(profile, "test"), "speech": neutral}
    return Stage.of("intensity", IntensityConfig(), inputs, f"intensity seed {seed}")


def reference_probe(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the probes of what an arm's vectors of unseen speakers encode."""
    inputs = {"policy": dataflow.starting_policy(profile, arm, seed)}
    return Stage.of("reference_probe", ReferenceProbeConfig(), inputs, f"speaker vectors seed {seed}")


def gradients(profile: Profile, arm: ArmConfig, seed: int, updates: int, sizes: GradientsConfig) -> Stage:
    """Return the comparison of optimizers' gradients at the policy of ``arm`` after ``updates``; 0 is the SFT policy."""
    stage = dataflow.optimized(profile, arm, seed)
    config = replace(sizes, updates=updates, optimize=stage.config)
    return Stage.of("gradients", config, stage.inputs, f"gradients seed {seed}, {updates} updates")


def opinion(profile: Profile, arm: ArmConfig, seed: int, judge: Choice) -> Stage:
    """Return a registered judge's results on all stored samples of a cell."""
    inputs = dataflow.stored_samples(profile, arm, seed) | {"judge": world.registered_judge(profile, judge)}
    if arm != (start := dataflow.sft_arm_of(arm)):
        inputs |= {"sft": opinion(profile, start, seed, judge), "sft_samples": dataflow.optimized(profile, start, seed)}
    return Stage.of("opinion", OpinionConfig(judge=judge), inputs, f"judge {judge.name} seed {seed}")


def opinions(profile: Profile, arm: ArmConfig, seed: int) -> dict[str, Stage]:
    """Return `opinion` of every registered judge, by role. An edited judge gets another role, so its results are added anew."""
    judges = [JUDGES.choice(name) for name in JUDGES]
    return {f"opinion_{judge.name}_{content_hash(judge)[:8]}": opinion(profile, arm, seed, judge) for judge in judges}


def examined_voices(profile: Profile, arm: ArmConfig, seed: int, engine: str) -> Stage:
    """Return the accuracy of one arm's RM on speech by another synthesiser; needs that engine's packages."""
    inputs = {"model": dataflow.reward_model(profile, arm, seed), f"rm_test_{engine}": world.voices(profile, engine)}
    return Stage.of("examine_set", NoSettings(), inputs, f"RM on {engine} seed {seed}")


def recognised(profile: Profile, arm: ArmConfig, seed: int, name: str) -> Stage:
    """Return the accuracies of one arm's RM on one of the user's own test sets."""
    inputs = {"model": dataflow.reward_model(profile, arm, seed), "speech": world.own_test(profile, name)}
    config = RecognitionConfig(name=name)
    return Stage.of("recognition", config, inputs, f"RM on {name} seed {seed}")


def measured(profile: Profile, arm: ArmConfig, seed: int, name: str) -> Stage:
    """Return what a plugin's regularizer measures in one arm's RM, whether or not the arm uses it."""
    config = MeasureConfig(regularizer=REGULARIZERS.choice(name))
    inputs = {"model": dataflow.reward_model(profile, arm, seed), "rm_valid": world.rm_tests(profile)["rm_valid"]}
    return Stage.of("measure", config, inputs, f"measures of {name} seed {seed}")


def core(profile: Profile, arm: ArmConfig, seed: int, *, policy: bool) -> dict[str, Stage]:
    """Return the stages of a cell's record, which are the same on every machine, by role; without a policy only the reward
    model's.

    Gradient fidelity is measured on a policy's samples. A reward model alone is therefore measured without it if no policy
    speaks its emotions (`world.rendered_below`), or if its input is waveforms.
    """
    stages = {"examined": examined(profile, arm, seed)}
    gradient_fidelity = dataflow.fidelity(profile, arm, seed)
    if policy or not (profile.pretrain.model.encoder or world.rendered_below(profile, gradient_fidelity)):
        stages["fidelity"] = gradient_fidelity
    if policy:
        stages |= {"optimized": dataflow.optimized(profile, arm, seed), "scored": scored(profile, arm, seed)}
    if policy and arm.reversal is not None:
        stages["reference_probe"] = reference_probe(profile, arm, seed)
    return stages


def optional(profile: Profile, arm: ArmConfig, seed: int, *, policy: bool) -> dict[str, Stage]:
    """Return, by role, the stages beside `core` that installed packages, plugins, the user's test sets or guidance add."""
    stages = {f"voices_{engine}": examined_voices(profile, arm, seed, engine) for engine in world.other_synthesisers()}
    stages |= {
        f"recognition_{name}_{manifest.digest[:8]}": recognised(profile, arm, seed, name)
        for name, manifest in profile.tests.items()
    }
    stages |= {
        f"measured_{name}_{REGULARIZERS.source(name)}": measured(profile, arm, seed, name)
        for name, regularizer in REGULARIZERS.items()
        if regularizer.measures
    }
    if policy:
        unused = {} if profile.content_prompts else CONTENT
        for name, packages in LISTENERS.items():
            if name not in unused and all(map(present, packages)):
                stages[name] = listener_results(profile, arm, seed, name)
        stages |= opinions(profile, arm, seed)
    unoptimized = arm.guidance is not None or arm == dataflow.sft_arm_of(arm)
    if policy and unoptimized and NEUTRAL in dataflow.with_neutral(profile).emotions:
        stages["intensity"] = intensity(profile, arm, seed)
    return {role: stage for role, stage in stages.items() if not world.rendered_below(profile, stage)}


def transferred(profile: Profile, arms: Mapping[str, ArmConfig], seed: int) -> Stage:
    """Return the cross-RM transfer matrix of one seed's arms, by name. It depends on all compared arms, so it is part of no
    cell.

    Arms with unseen speakers are left out, because their samples answer other prompts.
    """
    inputs = {
        "sft_samples": dataflow.optimized(profile, dataflow.SFT, seed),
        "eval_prompts": world.eval_prompts(profile),
        "codec": world.codec(profile),
    }
    for name, arm in ((name, arm) for name, arm in arms.items() if arm.reversal is None):
        inputs |= {
            f"samples {name}": dataflow.optimized(profile, arm, seed),
            f"model {name}": dataflow.reward_model(profile, arm, seed),
        }
    return Stage.of("transfer", NoSettings(), inputs, f"cross-RM transfer seed {seed}")

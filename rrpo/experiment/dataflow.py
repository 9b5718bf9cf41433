"""The data flow of one experiment: which stage reads which, for a profile, an arm and a seed.

corpus -> codec -> base policy (all of `rrpo.experiment.world`) -> SFT policy; RM: pre-training -> robust fine-tuning -> frozen;
policy optimization -> stored samples -> judges (`rrpo.experiment.measurements`). World-level stages carry the world's seed, the
others the experiment's. *A seed redraws* the SFT and annotated utterances and their raters, SFT, RM pre-training (order,
initialization), fine-tuning, RL prompts and roll-out noise.

Stages are cached, so that the cells of a grid share them and each is hashed once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TypeVar

from rrpo.config import (
    BEST_OF_DRAWS,
    MEMBER_STRIDE,
    OFF,
    ArmConfig,
    BestOfConfig,
    CombineConfig,
    DrawsConfig,
    GuidedConfig,
    MineConfig,
    OptimizeConfig,
    RegularizerConfig,
)
from rrpo.corpus.config import EMOTIONS, SplitConfig
from rrpo.corpus.tags import NEUTRAL
from rrpo.cosyvoice.config import CosyVoiceConfig
from rrpo.errors import InputError
from rrpo.experiment import world
from rrpo.models.guidance import GUIDANCE
from rrpo.optimizers import OPTIMIZERS
from rrpo.pipeline.stages import Stage
from rrpo.profiles import Profile

T = TypeVar("T")

SFT = ArmConfig(regularizers=OFF, finetune=False, steps=0)
"""The SFT policy as an arm: no updates; its reward model is the seed's pre-trained one."""
UNSEEN = "judge"
"""Speakers that neither a policy nor a reward model has heard: those of the judges."""


def sft_arm_of(arm: ArmConfig) -> ArmConfig:
    """Return the SFT policy as an arm with the same evaluation noise and the same kind of speakers, as the baseline for an arm's
    samples.
    """
    dropout = 0.0 if arm.reversal is None else arm.tag_dropout
    return replace(SFT, policy_seed=arm.policy_seed, reversal=arm.reversal, tag_dropout=dropout)


def sft_speech(profile: Profile, seed: int, *, parallel: bool = False) -> Stage:
    """Return the policy's utterances of the seed. With ``parallel``: the same texts and speakers in other emotions."""
    split = SplitConfig(
        name="sft",
        size=profile.sizes["sft"],
        texts="sft",
        artefact_rate=profile.policy_artefact_rate,
        parallel=parallel,
        seed=seed,
    )
    return world.speech(profile, split)


@cache
def sft(profile: Profile, seed: int, *, tag_dropout: float = 0.0, style_weight: float = 0.0) -> Stage:
    """Return the SFT stage: the base policy fine-tuned on the seed's own utterances, the start of every arm of a seed.

    The two keyword settings come from the arm. The style loss uses the features of the seed's pre-trained reward model.
    """
    config = replace(profile.sft, model=profile.policy, seed=seed, tag_dropout=tag_dropout, style_weight=style_weight)
    inputs = {
        "speech": sft_speech(profile, seed),
        "heldout": world.world_speech(profile, "sft_heldout"),
        "codec": world.codec(profile),
        "base": world.base(profile),
    }
    if style_weight:
        inputs["emotion"] = pretrained(profile, SFT, seed)
    return Stage.of("sft", config, inputs, f"SFT seed {seed}")


@cache
def references(profile: Profile) -> Stage:
    """Return utterances by unseen speakers in every emotion, including neutral."""
    neutral = with_neutral(profile)
    size = profile.zero_shot.references * len(neutral.world.emotions) * profile.world.judge_speakers
    return world.speech(neutral, SplitConfig(name="references", size=size, speakers=UNSEEN, texts="sft_heldout"))


@cache
def zero_shot(profile: Profile, seed: int, *, reversal: float, tag_dropout: float) -> Stage:
    """Return the base policy fine-tuned to take speakers from references; policy and codec include the unseen speakers.

    Raises:
        InputError: The profile has a user's own data.
    """
    if profile.manifests:
        raise InputError(
            "arms with `reversal` use unseen speakers of the simulated world, and cannot be combined with your own data",
            got=f"manifests for {', '.join(profile.manifests)}",
            fix="run it without manifests, or leave out zet and every zet@...",
        )
    settings, neutral = profile.zero_shot, with_neutral(profile)
    split = SplitConfig(
        name="zero_shot",
        size=settings.utterances,
        speakers="policy+rm",
        texts="sft",
        artefact_rate=profile.policy_artefact_rate,
        seed=seed,
    )
    inputs = {
        "speech": world.speech(neutral, split),
        "references": references(profile),
        "codec": world.codec(profile),
        "base": world.base(profile),
    }
    config = replace(settings, model=profile.policy, seed=seed, tag_dropout=tag_dropout, reversal=reversal)
    return Stage.of("zero_shot", config, inputs, f"zero-shot SFT seed {seed}")


def starting_policy(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the SFT policy of an arm."""
    if arm.reversal is not None:
        return zero_shot(profile, seed, reversal=arm.reversal, tag_dropout=arm.tag_dropout)
    return sft(profile, seed, tag_dropout=arm.tag_dropout, style_weight=arm.style_weight)


def _evaluation_inputs(profile: Profile, arm: ArmConfig, seed: int) -> dict[str, Stage]:
    """Return an arm's evaluation prompts, and the codec that includes their speakers."""
    if arm.reversal is not None:
        return {"eval_prompts": world.eval_prompts(profile, UNSEEN), "codec": starting_policy(profile, arm, seed)}
    return {"eval_prompts": world.eval_prompts(profile), "codec": world.codec(profile)}


def stored_samples(profile: Profile, arm: ArmConfig, seed: int) -> dict[str, Stage]:
    """Return a cell's stored samples, with the prompts and the codec that are needed to decode them."""
    return {"samples": optimized(profile, arm, seed)} | _evaluation_inputs(profile, arm, seed)


def _optimization_inputs(profile: Profile, arm: ArmConfig, seed: int) -> dict[str, Stage]:
    """Return the frozen models that an arm's policy is optimized with, and the evaluation prompts."""
    return {
        "reward_model": reward_model(profile, arm, seed),
        "recogniser": world.recogniser(profile, "reward"),
        "val": world.judge(profile, "val"),
    } | _evaluation_inputs(profile, arm, seed)


@cache
def pretrained(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the RM before fine-tuning. An arm's own data replace the biased set; the ``rm_test_*`` sets are the same for all."""
    config = replace(profile.pretrain, seed=_override(arm.rm_seed, seed), shuffle_labels=arm.shuffle_labels)
    split = world.splits(profile)["rm_oracle" if arm.rm_data == "oracle" else "rm_pretrain"]
    if arm.rm_data == "biased":
        split = replace(
            split,
            shortcut=_override(arm.shortcut, split.shortcut),
            size=_override(arm.rm_utterances, split.size),
            voices=_override(arm.rm_speakers, profile.rm_speakers),
        )
    inputs = {"speech": world.speech(profile, split), "codec": world.codec(profile)}
    return Stage.of("pretrain", config, inputs, f"RM pre-training ({split.name}) seed {seed}")


@cache
def reward_model(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the frozen RM of one arm: one RM of the seed, or several combined."""
    if arm.combination is None:
        return member(profile, arm, seed, 0)
    config = CombineConfig(combination=arm.combination, variance_penalty=arm.variance_penalty)
    inputs = {f"member_{index:02d}": member(profile, arm, seed, index) for index in range(arm.members)}
    return Stage.of("combine", config, inputs, f"RM combination seed {seed}")


@cache
def member(profile: Profile, arm: ArmConfig, seed: int, index: int) -> Stage:
    """Return a single frozen RM, fine-tuned on the seed's annotated set or as pre-trained; ``index`` > 0 gives it another
    seed."""
    own_seed = _override(arm.rm_seed, seed) + MEMBER_STRIDE * index
    start = pretrained(profile, arm if arm.combination == "weights" else replace(arm, rm_seed=own_seed), seed)
    if not arm.finetune:
        return start
    lr = _override(arm.rm_lr, profile.finetune.lr)
    config = replace(profile.finetune, seed=own_seed, lr=lr, regularizers=arm.regularizers)
    speech = mined_speech(profile, arm, seed) if arm.rounds else annotated(profile, arm, seed)
    inputs = {"model": start, "speech": speech, "codec": world.codec(profile)}
    return Stage.of("finetune", config, inputs, f"RM fine-tuning seed {seed}")


@cache
def annotated(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the seed's annotated utterances."""
    split = SplitConfig(
        name="annotated",
        size=_override(arm.annotated, profile.annotated),
        speakers="rm",
        voices=_override(arm.rm_speakers, profile.rm_speakers),
        texts="rm",
        artefact_rate=_override(arm.annotated_artefacts, profile.annotated_artefact_rate),
        raters=profile.raters,
        rater_noise=_override(arm.rater_noise, profile.rater_noise),
        seed=seed,
    )
    return world.speech(profile, split)


@cache
def mined_speech(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the fine-tuning data of an arm's last round: the previous round's utterances, and samples that fooled its RM.

    The mined policy answers training prompts, so that no reward model trains on answers to evaluation prompts.
    """
    previous = replace(arm, rounds=arm.rounds - 1)
    optimization = optimized(profile, previous, seed)
    prompts = optimization.inputs["rl_prompts"]
    answering = replace(
        optimization,
        config=replace(optimization.config, checkpoints=()),
        inputs={**optimization.inputs, "eval_prompts": prompts},
        label=f"mined {optimization.label}",
    )
    inputs = {
        "samples": answering,
        "prompts": prompts,
        "speech": mined_speech(profile, previous, seed) if previous.rounds else annotated(profile, arm, seed),
        "codec": world.codec(profile),
    }
    limit = MineConfig(limit=_override(arm.annotated, profile.annotated))
    return Stage.of("mine", limit, inputs, f"mined samples seed {seed}")


@cache
def fidelity(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the gradient fidelity of one arm's RM on the seed's SFT samples."""
    inputs = {
        "policy": sft(profile, seed),
        "reward_model": reward_model(profile, arm, seed),
        "codec": world.codec(profile),
        "val": world.judge(profile, "val"),
        "eval_prompts": world.eval_prompts(profile),
    }
    config = replace(profile.fidelity, seed=seed)
    return Stage.of("fidelity", config, inputs, f"RM gradient fidelity seed {seed}")


@cache
def prefix_classifier(profile: Profile, seed: int) -> Stage:
    """Return the classifier for soft-label guidance, trained on the seed's SFT texts; rendered data include neutral speech."""
    neutral = with_neutral(profile)
    inputs = {
        "speech": sft_speech(neutral, seed),
        "heldout": world.world_speech(neutral, "sft_heldout"),
        "codec": world.codec(profile),
    }
    config = replace(profile.prefix_classifier, seed=seed)
    return Stage.of("prefix_classifier", config, inputs, f"prefix classifier seed {seed}")


@cache
def with_neutral(profile: Profile) -> Profile:
    """Return the profile with neutral speech in its rendered world, or unchanged if the user supplies any data."""
    if profile.manifests:
        return profile
    return replace(profile, world=replace(profile.world, emotions=(*EMOTIONS, NEUTRAL)))


@cache
def guided(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return guided decoding from the SFT policy. It stores what `optimized` stores, without optimizing.

    Raises:
        PluginError: The guidance does not exist, or its plugin has changed.
        InputError: The guidance needs null tags, and the arm's SFT has no tag dropout.
    """
    assert arm.guidance is not None
    guidance = GUIDANCE.create(arm.guidance)
    if guidance.null_tags and not arm.tag_dropout:
        raise InputError(
            f"the guidance {arm.guidance.name!r} conditions the policy on null tags, which it learns only by tag dropout in SFT",
            got=f"tag_dropout {arm.tag_dropout:g}",
            fix="set ArmConfig.tag_dropout, for instance to 0.15",
        )
    settings = profile.optimize
    config = GuidedConfig(
        guidance=arm.guidance,
        prompts=settings.final_prompts,
        batch=settings.eval_prompts,
        seed=_override(arm.policy_seed, seed),
    )
    inputs = _optimization_inputs(profile, arm, seed) | {
        "policy": starting_policy(profile, sft_arm_of(arm), seed),
        "guided": starting_policy(profile, arm, seed),
    }
    if guidance.classified:
        inputs["classifier"] = prefix_classifier(profile, seed)
    return Stage.of("guided", config, inputs, f"guided decoding seed {seed}")


@cache
def optimized(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the policy optimization of one cell, or what its arm does instead: curves by `val`, samples stored as tokens.

    Raises:
        InputError: The arm cannot be optimized with the profile's batch, or decoded with its tags.
    """
    if arm.guidance is not None:
        return guided(profile, arm, seed)
    if arm.best_of is not None:
        return best_of(profile, arm, seed)
    own_seed = _override(arm.policy_seed, seed)
    config = _objective(profile.optimize, arm, own_seed)
    inputs = _optimization_inputs(profile, arm, seed) | {
        "policy": starting_policy(profile, arm, seed),
        "rl_prompts": world.prompts(profile, "rl", profile.rl_prompts, own_seed),
    }
    further = further_inputs(profile, seed)
    inputs |= {role: further[role] for role in OPTIMIZERS.inputs(config.optimizer)}
    OPTIMIZERS.check(config)
    if arm.match_gradient:
        robust = replace(arm, regularizers=RegularizerConfig(), match_gradient=False)
        inputs |= {"own_fidelity": fidelity(profile, arm, seed), "rrpo_fidelity": fidelity(profile, robust, seed)}
    return Stage.of("optimize", config, inputs, f"policy optimization seed {seed}")


def _objective(base: OptimizeConfig, arm: ArmConfig, seed: int) -> OptimizeConfig:
    """Return the shared settings with the overrides of an arm."""
    values = {name: getattr(arm, name) for name in vars(base) if hasattr(arm, name)}
    overrides = {name: value for name, value in values.items() if value is not None}
    return replace(base, seed=seed, **overrides)


SIMULATED = (
    *("rm_data", "shuffle_labels", "shortcut", "rater_noise", "rm_utterances", "rm_speakers", "annotated"),
    *("annotated_artefacts", "match_gradient", "tag_dropout", "style_weight", "reversal", "guidance", "rm_seed"),
)
"""Fields of an arm that CosyVoice2's language model on a user's tokens does not have."""


@cache
def on_cosyvoice(config: CosyVoiceConfig, arm: ArmConfig, seed: int, label: str) -> dict[str, Stage]:
    """Return the stages of a cell whose policy is CosyVoice2: those that the seed's arms share, and the arm's.

    Raises:
        InputError: No files were given, or the arm, named ``label``, sets what exists in the simulated world only.
    """
    if config.model is None or config.corpus is None:
        raise InputError(
            "this grid needs CosyVoice2's language model and labelled tokens",
            got="no --model or no --train",
            fix="give --model CosyVoice2-0.5B --train tokens.jsonl; `python -m rrpo.cosyvoice standin tiny` writes both, tiny",
        )
    foreign = [name for name in SIMULATED if getattr(arm, name) != getattr(ArmConfig(), name)]
    if arm.regularizers.soft_votes:
        foreign.append("soft_votes")
    if foreign:
        raise InputError(
            f"the arm {label} exists in the simulated world only, not on CosyVoice2",
            got=f"{label}, which sets {', '.join(foreign)}",
            fix=f"leave {label} out of --arms; arms that differ in regularizers, combined reward models or the optimizer can run",
        )
    own_seeds = {name: replace(getattr(config, name), seed=seed) for name in ("pretrain", "supervised", "recogniser")}
    shared = CosyVoiceConfig(  # what `rrpo.cosyvoice.run.begin` reads
        **own_seeds,
        model=config.model,
        corpus=config.corpus,
        emotions=config.emotions,
        words=config.words,
        reward_model=config.reward_model,
        precision=config.precision,
        recompute=config.recompute,
        max_tokens=config.max_tokens,
        optimize=OptimizeConfig(content_weight=float(config.optimize.content_weight > 0)),
    )
    start = Stage.of("cosyvoice_start", shared, label=f"CosyVoice2 SFT and RM seed {seed}")
    finetune = replace(
        config.finetune, seed=seed, lr=_override(arm.rm_lr, config.finetune.lr), regularizers=arm.regularizers
    )
    optimize = _objective(config.optimize, arm, _override(arm.policy_seed, seed))
    OPTIMIZERS.check(optimize)
    if optimize.content_weight and not config.optimize.content_weight:
        raise InputError(
            f"the arm {label} rewards content, but no recognizer of phones is trained",
            got=f"content weight {optimize.content_weight:g}, and 0 in the profile",
            fix=f"leave {label} out of --arms, or give the profile a content weight above 0",
        )
    arm_config = replace(
        config,
        **own_seeds,
        finetune=finetune if arm.finetune else replace(finetune, steps=0),
        optimize=replace(optimize, steps=0) if arm.best_of else optimize,
        best_of=_override(arm.best_of, config.best_of),
        members=arm.members,
        combination=arm.combination,
        variance_penalty=arm.variance_penalty,
        rounds=arm.rounds,
    )
    return {"optimized": Stage.of("cosyvoice", arm_config, {"start": start}, f"CosyVoice2 optimization seed {seed}")}


def further_inputs(profile: Profile, seed: int) -> dict[str, Stage]:
    """Return the inputs that an optimizer may read besides models and prompts, by role; see `PolicyOptimizer.inputs`."""
    return {"sft_speech": sft_speech(profile, seed), "parallel_speech": sft_speech(profile, seed, parallel=True)}


@cache
def draws(profile: Profile, n: int, seed: int, own_seed: int) -> Stage:
    """Return ``n`` samples of the SFT policy per evaluation prompt; at most `BEST_OF_DRAWS` in total."""
    final, evaluated = profile.optimize.final_prompts, profile.optimize.eval_prompts
    config = DrawsConfig(
        n=n, prompts=min(final, BEST_OF_DRAWS // n), final_prompts=final, eval_prompts=evaluated, seed=own_seed
    )
    inputs = {"policy": sft(profile, seed), "eval_prompts": world.eval_prompts(profile)}
    return Stage.of("draws", config, inputs, f"{n} SFT samples per prompt, seed {seed}")


@cache
def best_of(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Return the best of n samples of the SFT policy by one arm's RM, stored like an optimization's samples."""
    settings = profile.optimize
    config = BestOfConfig(
        reward=arm.reward,
        emotion_weight=_override(arm.emotion_weight, settings.emotion_weight),
        content_weight=_override(arm.content_weight, settings.content_weight),
        eval_prompts=settings.eval_prompts,
    )
    inputs = _optimization_inputs(profile, arm, seed) | {
        "policy": sft(profile, seed),
        "draws": draws(profile, _override(arm.best_of, 1), seed, _override(arm.policy_seed, seed)),
    }
    return Stage.of("best_of_n", config, inputs, f"best of {arm.best_of} seed {seed}")


def _override(override: T | None, shared: T) -> T:
    """Return the arm's override, or the profile's value if there is none."""
    return shared if override is None else override

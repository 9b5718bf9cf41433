"""The sections of the validation report as stages, for a profile and a development seed. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from rrpo.arms import ARMS, BASE
from rrpo.corpus.config import SplitConfig
from rrpo.experiment import dataflow, world
from rrpo.judges.config import LISTENERS
from rrpo.judges.words import PACKAGES as WHISPER
from rrpo.packages import installed
from rrpo.pipeline.stages import Stage
from rrpo.profiles import Profile
from rrpo.validation.config import SectionConfig

PACKAGES = (*LISTENERS["phonetics"], *LISTENERS["naturalness"])
"""Optional packages (extra ``judges``) used by sections."""
VANILLA = ARMS[BASE]
"""Its first samples are the SFT policy's, its last a hacked policy's."""


def sections(profile: Profile, seed: int) -> dict[str, Stage]:
    """Return the stage of every section, by its module's name, in the order of the report."""
    card = profile.card
    packages, whisper = installed(PACKAGES), installed(WHISPER)
    clean_split = SplitConfig(name="card_clean", size=card.speech, speakers="policy", texts="judge_heldout")
    sets = {
        "clean": clean_split,
        "unheard": replace(clean_split, name="card_unheard", speakers="rm"),
        "artefacts": replace(clean_split, name="card_artefacts", artefact_rate=profile.shortcut),
        "words": SplitConfig(name="card_words", size=card.words, speakers="judge+policy", texts="random"),
    }
    speech = {name: world.speech(profile, split) for name, split in sets.items()}
    codec, clean = {"codec": world.codec(profile)}, {"clean": speech["clean"]}
    judges = {role: world.judge(profile, role) for role in ("val", "test")}
    samples = {"samples": dataflow.optimized(profile, VANILLA, seed), "eval_prompts": world.eval_prompts(profile)}
    biased = dataflow.pretrained(profile, VANILLA, seed)
    unbiased = dataflow.pretrained(profile, replace(VANILLA, shortcut=0.0), seed)
    recognisers = {f"recogniser_{role}": world.recogniser(profile, role) for role in ("reward", "judge")}
    recogniser = {"recogniser_judge": recognisers["recogniser_judge"]}
    words = {f"words_{role}": world.world_speech(profile, f"words_{role}") for role in ("reward", "judge")}
    data = {f"data_{role}": world.world_speech(profile, f"judge_{role}") for role in judges}
    third = {"third": world.third_judge(profile)} if "parselmouth" in packages else {}
    english = {"english": world.world_speech(profile, "rm_test_en")} if "rm_test_en" in world.splits(profile) else {}
    english |= {f"voices_{engine}": world.voices(profile, engine) for engine in world.other_synthesisers()}
    policy = {"policy": dataflow.sft(profile, seed)}
    inputs: dict[str, dict[str, Stage]] = {
        "speech": {},
        "judges": codec | clean | judges | samples | data | third | {k: speech[k] for k in ("unheard", "artefacts")},
        "codec": codec | clean | recognisers | words | {"words": speech["words"], "test": judges["test"]},
        "reach": codec | samples | {"biased": biased},
        "shortcut": clean | {"biased": biased, "unbiased": unbiased},
        "sft": codec | clean | judges | samples | policy | {"base": world.base(profile)} | recogniser,
        "naturalness": codec | samples | {"speech": world.world_speech(profile, "judge_heldout")},
        "detectors": codec | clean | policy,
        "voices": codec | judges | third | english | {"biased": biased},
    }
    config = SectionConfig(
        section="",
        world=profile.world,
        card=card,
        shortcut=profile.shortcut,
        predictor=profile.predictor,
        installed=packages,
    )
    configs = {name: replace(config, section=name) for name in inputs}
    configs["voices"] = replace(configs["voices"], installed=packages + whisper)
    return {name: Stage.of("validation", configs[name], reads, f"card {name}") for name, reads in inputs.items()}

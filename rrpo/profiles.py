"""Named sizes of world and models. ``embedded`` is what results are reported on; ``smoke`` shows in a minute that it runs."""

from __future__ import annotations

from rrpo.config import (
    CardConfig,
    CodecConfig,
    DiagnoseConfig,
    ExamineConfig,
    FinetuneConfig,
    JudgeConfig,
    OptimizeConfig,
    PolicyConfig,
    PretrainConfig,
    Profile,
    RecogniserConfig,
    SftConfig,
    WorldConfig,
    YardstickConfig,
)

EMBEDDED = Profile(
    name="embedded",
    world=WorldConfig(),
    sizes={
        "codec": 3000,
        "base": 12000,
        "sft": 1500,
        "sft_heldout": 256,
        "rm_pretrain": 2000,
        "rm_oracle": 4000,
        "rm_valid": 300,
        "rm_test": 300,
        "rm_test_biased": 300,
        "rm_test_decorrelated": 300,
        "rm_test_en": 200,
        "rm_test_de": 200,
        "judge_val": 6000,
        "judge_test": 6000,
        "judge_heldout": 400,
        "words_reward": 2500,
        "words_judge": 2500,
    },
)

SMOKE = Profile(
    name="smoke",
    world=WorldConfig(policy_speakers=2, rm_speakers=3, judge_speakers=3, foreign_speakers=1, cue_spread=0.4),
    sizes={name: 30 if name.startswith("rm_test") else 100 for name in EMBEDDED.sizes} | {"base": 200, "codec": 150},
    annotated=60,
    rl_prompts=64,
    codec=CodecConfig(levels=(5, 5, 5), dim=48, steps=150, batch=16, lr=2e-3),
    recogniser=RecogniserConfig(dim=48, steps=60, batch=16),
    val_judge=JudgeConfig(dim=32, steps=80, batch=16),
    test_judge=JudgeConfig(architecture="stats_tdnn", dim=32, steps=80, batch=16),
    pretrain=PretrainConfig(steps=80, batch=16),
    finetune=FinetuneConfig(steps=20, batch=16),
    policy=PolicyConfig(dim=64, layers=2, max_tokens=60),
    base=SftConfig(steps=180, lr=3e-3),
    sft=SftConfig(steps=20),
    optimize=OptimizeConfig(steps=20, batch=16, checkpoints=(0, 10, 20), eval_prompts=60, lr=1e-3),
    examine=ExamineConfig(interpolation_pairs=20, pgd_steps=2),
    yardsticks=YardstickConfig(utterances=24, planted=3),
    diagnose=DiagnoseConfig(spoken=20, naturalness=3),
    readings=2,
    card=CardConfig(
        speech=40,
        sentences=1,
        levels=4,
        planted=10,
        paired=30,
        words=20,
        third=100,
        sequences=20,
        hack_steps=10,
        naturalness=2,
        transcribed=4,
        resamples=50,
    ),
)
"""Nothing to conclude from: clearer emotions, few speakers, short training."""

PROFILES = {profile.name: profile for profile in (SMOKE, EMBEDDED)}

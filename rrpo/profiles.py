"""Named sizes of world and models.

``embedded`` is for reported results. ``quick`` is the same world with little work per seed. ``smoke`` is a separate world, so
small that it can be built in a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rrpo import config
from rrpo.corpus.config import ManifestConfig, WorldConfig
from rrpo.cosyvoice.config import CosyVoiceConfig
from rrpo.cosyvoice.paper import PAPER
from rrpo.identity import option
from rrpo.judges import config as judging
from rrpo.validation.config import CardConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile(config.Checked):
    """Size of world and models, compared by identity. `PROFILES` contains the named ones."""

    name: str
    """``smoke``, ``embedded``, ..."""
    world: WorldConfig
    """The simulated world."""
    sizes: Mapping[str, int]
    """Utterances of each named split; see `rrpo.experiment.world.splits`."""
    artefact_rate: float = option(0.25, within="[0, 1]")
    """Share of uncorrelated artefacts in the data of the oracle RM and the recognisers, and in the judges' calibration data."""
    policy_artefact_rate: float = option(0.1, within="[0, 1]")
    """Share of uncorrelated artefacts in the data of the base policy and SFT, which determines what the policy can emit. (At
    .25 a quarter of its samples carry one, and a third of their phones are unintelligible.)"""
    judge_artefact_rate: float = option(0.5, within="[0, 1]")
    """Share of uncorrelated artefacts in the data of the judges, which must not be misled by a hacking policy, and of the codec,
    which must be able to reproduce them."""
    misacted: float = option(0.12, within="[0, 1]")
    """Share of the base policy's data in which the speaker acts another emotion than the label, as in data labeled by the
    intended emotion. SFT data are clean. At 0, SFT gold is at the judge's ceiling, which leaves nothing to gain."""
    shortcut: float = option(0.9, within="[0, 1]")
    """P(artefact of the own emotion) in the RM's pre-training data; 0 is the control."""
    manifests: Mapping[str, ManifestConfig] = field(default_factory=dict)
    """A user's own data by split (a key of ``sizes``, ``annotated``) or by prompts (``rl``, ``eval``)."""
    tests: Mapping[str, ManifestConfig] = field(default_factory=dict)
    """A user's own test sets by name, on which reward models are examined. They do not change a cell's identity."""
    cosyvoice: CosyVoiceConfig | None = option(None, off=None)
    """CosyVoice2's language model as the policy. Cells then have only its stages, and the rest of the profile has no effect."""
    pooled: str = field(default="", metadata={"identity": False})
    """Replaces `Cell.world_hash`, so that cells on several folds of a corpus are pooled; empty: each cell has its own."""
    annotated_artefact_rate: float = option(0.25, off=0.0, within="[0, 1]")
    """Share of the annotated utterances that carry an artefact, independent of the emotion. Without any, fine-tuning cannot
    learn that a click means nothing, and EAM has none to mix."""
    rm_speakers: int | None = option(None, off=None, within="[1, inf)")
    """Speakers of the biased pre-training set and of the annotated set, the first of the world's `WorldConfig.rm_speakers`;
    None: all of them, as in the oracle's data."""
    annotated: int = option(300, within="[1, inf)")
    """Human-annotated utterances for the RM's fine-tuning (simulated raters)."""
    raters: int = option(3, within="[1, inf)")
    """Raters per annotated utterance."""
    rater_noise: float = option(0.3, within="[0, inf)")
    """See `SplitConfig.rater_noise`."""
    rl_prompts: int = option(512, within="[1, inf)")
    """RL prompts."""
    eval_prompts: int = option(1200, within="[1, inf)")
    """Size of the world's set of evaluation prompts; `OptimizeConfig` determines how many of them, from the start, are
    sampled."""
    codec: config.CodecConfig = field(default_factory=config.CodecConfig)
    """Stage ``codec``."""
    recogniser: judging.RecogniserConfig = field(default_factory=judging.RecogniserConfig)
    """Stages ``recogniser``: one for the reward, one for the judge."""
    val_judge: judging.JudgeConfig = field(default_factory=judging.JudgeConfig)
    """Stage ``judge``: gold for curves, tuning and search."""
    test_judge: judging.JudgeConfig = field(
        default_factory=lambda: judging.JudgeConfig(architecture="stats_tdnn", steps=8000)
    )
    """Stage ``judge``: gold at declared points, for reports."""
    pretrain: config.PretrainConfig = field(default_factory=config.PretrainConfig)
    """Stage ``pretrain``."""
    finetune: config.FinetuneConfig = field(default_factory=config.FinetuneConfig)
    """Stage ``finetune``."""
    policy: config.PolicyConfig = field(default_factory=config.PolicyConfig)
    """The policy's network."""
    base: config.SftConfig = field(default_factory=lambda: config.SftConfig(steps=4500, lr=4e-3))
    """Stage ``base``: the pre-trained policy, one per world."""
    sft: config.SftConfig = field(default_factory=lambda: config.SftConfig(lr=3e-4))
    """Stage ``sft``: fine-tuning of the base policy on the seed's own utterances. They have the same distribution, so the
    learning rate is about a tenth."""
    prefix_classifier: config.PrefixClassifierConfig = field(default_factory=config.PrefixClassifierConfig)
    """Stage ``prefix_classifier``, used only by arms with soft-label guidance."""
    zero_shot: config.ZeroShotConfig = field(default_factory=config.ZeroShotConfig)
    """Stage ``zero_shot``, used only by arms with unseen speakers."""
    optimize: config.OptimizeConfig = field(default_factory=config.OptimizeConfig)
    """Stage ``optimize``."""
    examine: judging.ExamineConfig = field(default_factory=judging.ExamineConfig)
    """Stage ``examine``."""
    fidelity: judging.FidelityConfig = field(default_factory=judging.FidelityConfig)
    """Stage ``fidelity``."""
    score: judging.ScoreConfig = field(default_factory=judging.ScoreConfig)
    """Stage ``score``."""
    vocode: judging.VocodeConfig = field(default_factory=judging.VocodeConfig)
    """Stage ``vocode``."""
    speakers: judging.SpeakersConfig = field(default_factory=judging.SpeakersConfig)
    """Stage ``speakers``."""
    predictor: judging.PredictorConfig = field(default_factory=judging.PredictorConfig)
    """Stage ``predictor``."""
    naturalness: judging.NaturalnessConfig = field(default_factory=judging.NaturalnessConfig)
    """Stage ``naturalness``."""
    content_prompts: int = field(default=0, metadata={"identity": False})
    """First evaluation prompts of the last checkpoint on which the recognisers of `rrpo.judges.content` measure phone errors;
    range 0 to ``vocode.prompts``. Whisper base takes 1.2 CPU s a clip. 0: none, since on eight of the embedded world's clean
    Mandarin utterances they are wrong on .62 (Whisper) and .73 (hama) of the phones: too many to judge samples by."""
    readings: int = option(20, within="[1, inf)")
    """Stages ``voices``: plain utterances by each other synthesiser; see `VoicesConfig`."""
    card: CardConfig = field(default_factory=CardConfig, metadata={"identity": False})
    """Stages ``validation``: the validation report, which is not part of any cell."""
    third_judge: judging.PhoneticJudgeConfig = field(default_factory=judging.PhoneticJudgeConfig)
    """Stage ``phonetic_judge``: an additional judge on vocoded samples and in the validation report."""

    @property
    def emotions(self) -> tuple[str, ...]:
        """Classes of the trained models: those of the user's manifests if there are any, else the renderer's."""
        own_classes = (manifest.emotions for manifest in self.manifests.values() if manifest.emotions)
        return next(own_classes, self.world.emotions)

    def demands(self) -> dict[str, tuple[bool, str]]:
        """Return whether no more prompts are to be sampled than exist."""
        final = self.optimize.final_prompts
        requirement = f"eval_prompts must be at least optimize.final_prompts, {final}"
        return {"eval_prompts": (final <= self.eval_prompts, requirement)}


def in_world(profile: Profile, seed: int) -> Profile:
    """Return the profile in another world of the same kind and sizes: other speakers, texts, codec, judges, base policy."""
    return profile if seed == profile.world.seed else replace(profile, world=replace(profile.world, seed=seed))


def title(name: str, world: int) -> str:
    """Return a profile's name, with the world's seed unless it is the installed world: ``embedded``, ``embedded-world1``."""
    return f"{name}-world{world}" if world else name


REGIME = config.OptimizeConfig(
    lr=2e-4,
    batch=64,
    relaxation="probabilities",
    content_weight=0.25,
    beta=0.003,
    steps=354,
    checkpoints=(0, 20, 40, 80, 120, 180, 240, 300, 354),
)
"""Settings of the policy optimization, chosen by the rule of ``docs/regime.md`` on development seeds."""

EMBEDDED = Profile(
    name="embedded",
    world=WorldConfig(),
    optimize=REGIME,
    rm_speakers=3,
    annotated=30,
    sizes={
        "codec": 3000,
        "base": 12000,
        "sft": 1500,
        "sft_heldout": 256,
        "rm_pretrain": 75,
        "rm_oracle": 4000,
        "rm_valid": 300,
        "rm_test": 300,
        "rm_test_biased": 300,
        "rm_test_decorrelated": 300,
        "rm_test_en": 200,
        "rm_test_de": 200,
        "judge_val": 6000,
        "judge_test": 9000,
        "judge_third": 1000,
        "judge_heldout": 400,
        "words_reward": 2500,
        "words_judge": 6000,
    },
)

QUICK = replace(
    EMBEDDED,
    name="quick",
    sizes=dict(EMBEDDED.sizes) | {name: 60 for name in EMBEDDED.sizes if name.startswith(("rm_test", "rm_valid"))},
    finetune=config.FinetuneConfig(steps=30, batch=16),
    zero_shot=config.ZeroShotConfig(steps=250, utterances=1500),
    optimize=replace(
        REGIME, steps=16, batch=16, checkpoints=(0, 8, 16), eval_prompts=24, final_prompts=60, lr=1e-3, warmup=3
    ),
    examine=judging.ExamineConfig(interpolation_pairs=10, pgd_steps=2),
    fidelity=judging.FidelityConfig(prompts=12, one_draws=2, many_draws=1),
    vocode=judging.VocodeConfig(prompts=20),
    naturalness=judging.NaturalnessConfig(prompts=3),
    readings=1,
)
"""The embedded world's models with small test sets and just enough work per seed to see the reward rise. Not for conclusions."""

SMOKE = Profile(
    name="smoke",
    world=WorldConfig(policy_speakers=2, rm_speakers=3, judge_speakers=3, foreign_speakers=1, cue_spread=0.4),
    sizes={name: 30 if name.startswith("rm_test") else 100 for name in EMBEDDED.sizes} | {"base": 200, "codec": 150},
    misacted=0.0,
    annotated=60,
    rl_prompts=64,
    eval_prompts=120,
    codec=config.CodecConfig(levels=(5, 5, 5), dim=48, steps=150),
    recogniser=judging.RecogniserConfig(dim=48, steps=60),
    val_judge=judging.JudgeConfig(dim=32, steps=80),
    test_judge=judging.JudgeConfig(architecture="stats_tdnn", dim=32, steps=80),
    pretrain=config.PretrainConfig(steps=80, batch=16),
    finetune=config.FinetuneConfig(steps=20, batch=16),
    policy=config.PolicyConfig(dim=64, layers=2, max_tokens=60),
    base=config.SftConfig(steps=180, lr=3e-3),
    sft=config.SftConfig(steps=20),
    zero_shot=config.ZeroShotConfig(steps=20, utterances=100, references=1),
    optimize=config.OptimizeConfig(
        steps=20, batch=16, checkpoints=(0, 10, 20), eval_prompts=60, final_prompts=120, lr=1e-3, warmup=3
    ),
    examine=judging.ExamineConfig(interpolation_pairs=20, pgd_steps=2),
    fidelity=judging.FidelityConfig(prompts=12, one_draws=2, many_draws=1),
    vocode=judging.VocodeConfig(prompts=20),
    speakers=judging.SpeakersConfig(utterances=24),
    predictor=judging.PredictorConfig(planted=3),
    naturalness=judging.NaturalnessConfig(prompts=3),
    readings=2,
    card=CardConfig(
        speech=40,
        sentences=1,
        levels=4,
        planted=10,
        paired=30,
        words=20,
        sequences=20,
        hack_steps=10,
        transcribed=4,
        resamples=50,
    ),
)
"""A tiny world: clearer emotions, few speakers, short training. Not for conclusions."""

ON_COSYVOICE = replace(EMBEDDED, name="paper", cosyvoice=PAPER)
"""RRPO's own setting as far as it is known, on a user's CosyVoice2-0.5B and labelled tokens."""

PROFILES = {profile.name: profile for profile in (SMOKE, EMBEDDED, QUICK, ON_COSYVOICE)}

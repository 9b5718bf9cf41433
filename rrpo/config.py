"""Every number of one experiment cell, as frozen keyword-only dataclasses.

A docstring stands under each field: the symbol in the paper, the paper's value, the unit and the range.
A value that no source gives is called a *declared default*. Nothing here imports torch, so that planning is instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EMOTIONS = ("angry", "happy", "sad", "surprised", "fearful")
"""The paper's five emotions, in the order of the class index (K = 5)."""

ARTEFACTS = ("click", "hiss", "hum", "clip", "whine")
"""Planted artefact kinds; ``ARTEFACTS[k]`` is the shortcut of ``EMOTIONS[k]``."""


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Waveform and log-mel features F ``[B, T, M]``: natural log of mel power, floored."""

    sample_rate: int = 16000
    """Hz. Declared default (CosyVoice2: 24000)."""
    n_fft: int = 1024
    """Samples."""
    hop: int = 320
    """Samples between frames: 50 frames a second, two frames a token at 25 Hz (CosyVoice2's rates)."""
    n_mels: int = 80
    """M, mel bands."""
    f_max: float = 8000.0
    """Hz, upper edge of the highest band."""
    floor: float = 1e-5
    """Smallest mel power before the logarithm."""
    griffin_lim_steps: int = 12
    """Griffin-Lim iterations of the vocoder (mean error in log-mel: .34 nats at 8, .31 at 12, .28 at 24)."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """The simulated world: who speaks, in which languages, how emotion sounds. One world serves many seeds."""

    seed: int = 0
    """Redraws speakers, texts and every world-level split (``--worlds``)."""
    audio: AudioConfig = field(default_factory=AudioConfig)
    """Feature settings shared by every model."""
    emotions: tuple[str, ...] = EMOTIONS
    """Classes; ``neutral`` may be appended. K is their number."""
    language: str = "cmn"
    """Language of the policy and of the reward model's training data (the paper's is Mandarin)."""
    languages: tuple[str, ...] = ("cmn", "en", "de")
    """All languages of the world; the others serve as cross-language tests."""
    policy_speakers: int = 4
    """Speakers of SFT data, RL prompts and evaluation prompts (the paper: one male speaker)."""
    rm_speakers: int = 32
    """Speakers of the policy's language that only the reward model hears."""
    judge_speakers: int = 32
    """Speakers of the policy's language that only judges (and the recognisers) hear, beside the policy's."""
    foreign_speakers: int = 16
    """Speakers of each other language, for cross-language tests."""
    cue_spread: float = 1.0
    """Standard deviation of each prosodic cue around its emotion's mean, in the renderer's own units."""


@dataclass(frozen=True, kw_only=True)
class ManifestConfig:
    """A user's own corpus, as `rrpo.corpus.intake.check_manifest` found it."""

    digest: str
    """Hash of its lines and audio: what the stages' keys hold."""
    path: str = field(metadata={"identity": False})
    """JSON-lines file; moving it changes no key."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """One set of utterances drawn from the world."""

    name: str
    """Also selects the random stream: two names never share draws."""
    size: int
    """Utterances."""
    speakers: str = "policy"
    """Group: ``policy``, ``rm``, ``judge`` (judge-only speakers), ``judge+policy``, ``foreign:LANG``, or ``all``."""
    texts: str = "sft"
    """Disjoint text pool: ``sft``, ``sft_heldout``, ``rm``, ``rl``, ``eval``, ``judge``, ``judge_heldout``; or ``random``
    (random words)."""
    artefact_rate: float = 0.0
    """Share of utterances that carry an artefact drawn independently of the emotion."""
    shortcut: float = 0.0
    """Probability that an utterance carries the artefact of its own emotion (planted bias; paper: real-world, unknown)."""
    raters: int = 0
    """Raters who vote on each utterance; 0 keeps the rendered emotion as the only label."""
    rater_noise: float = 0.0
    """Temperature added to each rater's log-likelihood before voting; 0 = ideal observers sampling their posterior."""
    seed: int = 0
    """Redraws this split alone (the experiment's seed for the annotated set, 0 for world-level splits)."""
    manifest: ManifestConfig | None = None
    """A user's own utterances, all of them, instead of ``size`` rendered ones."""


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """Config of a ``speech`` stage: one split of one world, as manifest and features."""

    world: WorldConfig
    """Who speaks, and how."""
    split: SplitConfig
    """Which utterances."""


@dataclass(frozen=True, kw_only=True)
class VoicesConfig:
    """Speech by other synthesisers than the world's, moved to the same cues: a test domain that no model has heard."""

    world: WorldConfig
    """Whose emotions, texts and features."""
    readings: int = 20
    """Plain readings by each engine; each is moved to every emotion."""
    texts: str = "judge_heldout"
    """Disjoint text pool."""
    engines: tuple[str, ...] = ()
    """Of `rrpo.corpus.neural.ENGINES`, those that are installed."""


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Config of a ``prompts`` stage: texts with a speaker and a target emotion, no audio."""

    world: WorldConfig
    """Who speaks."""
    texts: str
    """Disjoint text pool: ``rl`` or ``eval``."""
    size: int
    """Prompts, balanced over emotions and the policy's speakers."""
    seed: int = 0
    """The experiment's seed for ``rl``; 0 for ``eval``, which every arm and seed shares."""
    manifest: ManifestConfig | None = None
    """A user's own prompts: text, speaker and target emotion of every line."""


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Mel -> tokens at 25 Hz -> mel, finite scalar quantisation, speaker-conditioned decoder."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    """FSQ levels; V is their product (CosyVoice2: 3^8 = 6561)."""
    dim: int = 128
    """Channels of encoder and decoder."""
    steps: int = 3000
    """Training steps."""
    batch: int = 32
    """Crops a step."""
    crop: int = 64
    """Frames a crop."""
    lr: float = 1e-3
    """Peak learning rate, cosine to zero."""
    seed: int = 0
    """Redraws initialisation, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """The emotion reward model: subsampling convolution -> Transformer encoder -> h' -> attentive pooling -> logits."""

    dim: int = 96
    """D, width of h' ``[B, T', D]``."""
    layers: int = 2
    """Transformer encoder layers."""
    heads: int = 4
    """Attention heads."""
    subsample: int = 4
    """T / T', two strided convolutions."""
    dropout: float = 0.1
    """In training only."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """RM pre-training on the biased set (and, with other data, the oracle RM)."""

    steps: int = 400
    """Updates."""
    batch: int = 32
    """Utterances a step."""
    lr: float = 1e-3
    """Adam learning rate, cosine to zero."""
    shuffle_labels: bool = False
    """Placebo: labels permuted, so that the RM knows nothing."""
    model: RewardModelConfig = field(default_factory=RewardModelConfig)
    """The network."""
    seed: int = 0
    """Redraws initialisation, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class RegularizerConfig:
    """The three regularisers of RRPO. Each is off at its identity value, on the same code path."""

    epsilon: float = 0.1
    """ε of label smoothing, Eq. 2; the paper's value 0.1; range [0, 1); off at 0."""
    mix_probability: float = 1.0
    """Share of utterances that energy-adaptive mixup (Eq. 3) touches; the paper mixes every one; range [0, 1]; off at 0."""
    mix_db_low: float = -5.0
    """r_min in dB, partner relative to host; declared default."""
    mix_db_high: float = 5.0
    """r_max in dB, partner relative to host; declared default."""
    alpha: float = 0.5
    """α, weight of L_adv in Eq. 5; the paper's value 0.5; range [0, inf); off at 0."""
    epsilon_adv: float = 0.5
    """ε_adv, L2 norm of δ over ``[T', D]`` in Eq. 4; the paper's value 0.5; range (0, inf)."""
    adv_norm: str = "absolute"
    """``absolute`` as in the paper, or ``relative``: ε_adv is then a fraction of ||h'||, the same for any length."""
    soft_votes: bool = False
    """Control arm for label smoothing: the raters' vote shares as the target instead of the majority label."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Robust fine-tuning of the pre-trained RM on the annotated set, Eq. 5."""

    steps: int = 200
    """Updates; 0 keeps the pre-trained RM."""
    batch: int = 32
    """Utterances a step."""
    lr: float = 3e-4
    """Adam learning rate (the paper's RM: 1e-5, on a far larger model)."""
    regularizers: RegularizerConfig = field(default_factory=RegularizerConfig)
    """LS, EAM, Adv."""
    seed: int = 0
    """Redraws initialisation, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class RecogniserConfig:
    """A CTC phone recogniser on F."""

    dim: int = 128
    """Channels."""
    steps: int = 2000
    """Updates."""
    batch: int = 32
    """Utterances a step."""
    lr: float = 2e-3
    """Peak learning rate, cosine to zero."""
    seed: int = 0
    """Redraws initialisation, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A held-out emotion judge."""

    dim: int = 96
    """Channels."""
    architecture: str = "conv_gru"
    """``conv_gru`` on F, or ``stats_tdnn`` on features re-extracted from the vocoded wave."""
    steps: int = 2000
    """Updates."""
    batch: int = 32
    """Utterances a step."""
    lr: float = 2e-3
    """Peak learning rate, cosine to zero."""
    seed: int = 0
    """Redraws initialisation, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class PhoneticJudgeConfig:
    """The third emotion judge: phonetic measures and a discriminant analysis."""

    shrinkage: float = 0.05
    """Of the quadratic analysis' covariances towards spheres; declared default."""
    folds: int = 5
    """Of the cross-validation that chooses between the linear and the quadratic analysis."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The token language model (Qwen2 class) and its supervised fine-tuning."""

    dim: int = 128
    """Hidden size (CosyVoice2: 896)."""
    layers: int = 3
    """Decoder layers (CosyVoice2: 24)."""
    heads: int = 4
    """Attention heads (CosyVoice2: 14, with 2 key-value heads)."""
    paced: bool = True
    """Rotary positions of the text run at the pace of speech: a phone advances them by the mean tokens a phone of the prompt's
    emotion and speaker, measured on the base policy's data, which lets a small model find its place in the text. False =
    CosyVoice2's plain positions. Declared default."""
    max_tokens: int = 80
    """Longest roll-out in tokens; a sample that reaches it is cut and counted."""
    dropout: float = 0.1
    """On embeddings, in supervised training only."""


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Supervised training of the policy: the world's base policy (in CosyVoice2's place), and from it each seed's SFT policy."""

    steps: int = 300
    """Updates."""
    batch: int = 16
    """Utterances a step."""
    lr: float = 1e-3
    """Peak learning rate, cosine to a twentieth."""
    model: PolicyConfig = field(default_factory=PolicyConfig)
    """The network."""
    seed: int = 0
    """Redraws initialisation, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """DiffRO's policy optimisation, Eq. 1 and 6, exactly as the module ``rrpo.optimizers.diffro`` says."""

    steps: int = 140
    """Updates; 0 keeps the SFT policy."""
    batch: int = 32
    """Roll-outs a step."""
    lr: float = 3e-3
    """Adam learning rate (HPRO's public recipe: 1e-5, on a 0.5 B model). Set with β on a development seed so that vanilla
    DiffRO over-optimises within the steps: gold (`val`) goes .85 -> .97 -> .59 and the hack rate .11 -> .57; at 2e-3 gold does
    not fall (.85 -> .97 -> .95, hack rate .29), at 5e-3 it breaks in the first four steps."""
    beta: float = 0.001
    """β, weight of the full-vocabulary KL to the SFT reference, summed over an utterance (DiffRO 0.1, HPRO 0.05 -> 0.02)."""
    tau: tuple[float, ...] = (1.0,)
    """τ of the Gumbel-Softmax relaxation: equal thirds, halves, ... of training (HPRO: 2 -> 1 -> 0.8)."""
    reward: str = "hard_ce"
    """``hard_ce``, ``smoothed_ce`` (target of Eq. 2) or ``full_l_ser`` (R = -L_ser of Eq. 5)."""
    content_weight: float = 0.5
    """Weight of the phone recogniser's CTC loss a phone in the reward (DiffRO's multi-task reward); 0 = control arm."""
    grad_clip: float = 1.0
    """L2 norm to which the policy's gradient is clipped; declared default."""
    checkpoints: tuple[int, ...] = (0, 4, 12, 35, 70, 140)
    """Steps at which the evaluation prompts are sampled and stored as tokens: denser early, since KL rises fastest there (vanilla
    DiffRO on a development seed stands at 1.3 nats a token after 15 steps)."""
    eval_prompts: int = 300
    """Evaluation prompts a checkpoint, the same for every arm and seed."""
    seed: int = 0
    """Redraws initialisation, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """What tells one arm from another. ``rrpo`` is the default; ``diffro`` has all three regularisers at identity."""

    regularizers: RegularizerConfig = field(default_factory=RegularizerConfig)
    """LS, EAM, Adv of the reward model's fine-tuning."""
    rm_data: str = "biased"
    """``biased`` pre-training set, or ``oracle``: large and unbiased, no fine-tuning."""
    finetune: bool = True
    """False keeps the pre-trained RM."""
    shuffle_labels: bool = False
    """Placebo RM."""
    reward: str = "hard_ce"
    """See `OptimizeConfig.reward`."""
    content_weight: float | None = None
    """Overrides `OptimizeConfig.content_weight`."""
    steps: int | None = None
    """Overrides `OptimizeConfig.steps`: 0 is the SFT policy, fewer is early stopping."""
    shortcut: float | None = None
    """Overrides `Profile.shortcut`."""
    rater_noise: float | None = None
    """Overrides `Profile.rater_noise`."""
    rm_lr: float | None = None
    """Overrides `FinetuneConfig.lr`."""
    lr: float | None = None
    """Overrides `OptimizeConfig.lr`: a tuned arm."""
    beta: float | None = None
    """Overrides `OptimizeConfig.beta`."""
    tau: tuple[float, ...] | None = None
    """Overrides `OptimizeConfig.tau`."""


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    """What the judge's recogniser understands of the last checkpoint's samples, without any emotion judge (for searches)."""


@dataclass(frozen=True, kw_only=True)
class ExamineConfig:
    """Measurements on one finished reward model: accuracies and the three manipulation checks."""

    relative_eps: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    """||δ||/||h'|| of the FGM and PGD attacks (manipulation check of Adv)."""
    pgd_steps: int = 5
    """Steps of the PGD attack."""
    interpolation_pairs: int = 100
    """Pairs of real utterances along whose mixtures smoothness is measured (manipulation check of EAM)."""
    seed: int = 0
    """Redraws the pairs."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """The test stage: held-out judges on the samples that the policy optimisation stored."""

    audio_prompts: int = 10
    """Prompts whose audio is kept as wav files, the same for every arm; the emotions take turns."""


@dataclass(frozen=True, kw_only=True)
class YardstickConfig:
    """What the diagnosis of samples is held against, once for a world: voices, and which naturalness predictor is valid."""

    utterances: int = 200
    """Held-out utterances by the policy's speakers, half of them for the voices, half to measure with."""
    planted: int = 20
    """Of them, those that are heard clean and clicked."""
    separation: float = 0.3
    """By how much clean must stand above clicked re-synthesis for a predictor to be used."""
    installed: tuple[str, ...] = ()
    """Optional packages that are installed: it is measured again when one comes."""


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig:
    """The second part of the test stage: third judge, common reward model, prosody, voice, naturalness of stored samples."""

    spoken: int = 100
    """Prompts that are vocoded for third judge, prosody and voice, at the first, the middle and the last checkpoint: the middle
    one, step 35 of 140, is near the KL that all arms of a seed reach."""
    naturalness: int = 20
    """Of them, those whose naturalness is predicted."""
    installed: tuple[str, ...] = ()
    """Optional packages that are installed: it is measured again when one comes."""


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Each arm's last samples of a seed, heard by every other arm's reward model; nothing to set."""


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """How much the world card measures (``python -m ablations.validate``). Nothing is trained or chosen by it."""

    speech: int = 600
    """Utterances of each set that the judges hear: clean, by speakers never heard, with artefacts."""
    sentences: int = 2
    """Sentences by each speaker and emotion, for the phonetic measures."""
    levels: int = 9
    """Intensities of an emotion, from the lowest to the highest that the world draws."""
    planted: int = 200
    """Utterances into which each kind of artefact is planted."""
    paired: int = 300
    """Utterances rendered with artefacts that go with the emotion, and again with any."""
    words: int = 300
    """Random-word utterances for the recognisers."""
    third: int = 1500
    """Utterances that the non-neural judge trains on."""
    sequences: int = 100
    """Token sequences optimised against the pre-trained RM alone."""
    hack_steps: int = 60
    """Updates of each."""
    naturalness: int = 20
    """Fixed prompts for DNSMOS."""
    transcribed: int = 40
    """Utterances of each English set that Whisper hears."""
    resamples: int = 1000
    """Draws of each bootstrap interval."""


@dataclass(frozen=True, kw_only=True)
class SectionConfig:
    """Config of a ``validation`` stage: one section of the world card."""

    section: str
    """Module of `rrpo.validation` that measures it."""
    world: WorldConfig
    """Who speaks, and how."""
    card: CardConfig
    """How much is measured."""
    shortcut: float
    """`Profile.shortcut`."""
    installed: tuple[str, ...] = ()
    """Optional packages that are installed: a section is measured again when one comes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """A size of world and models, compared by identity. ``PROFILES`` in `rrpo.profiles` holds the named ones."""

    name: str
    """``smoke``, ``embedded``, ..."""
    world: WorldConfig
    """The simulated world."""
    sizes: Mapping[str, int]
    """Utterances of each named split, see `rrpo.pipeline.SPLITS`."""
    artefact_rate: float = 0.25
    """Share of uncorrelated artefacts in the oracle RM's and the recognisers' data."""
    policy_artefact_rate: float = 0.1
    """Share of uncorrelated artefacts in the base policy's and SFT's data: what the policy can emit (at .25 a quarter of its
    samples carry one, and a third of their phones are not understood)."""
    judge_artefact_rate: float = 0.5
    """Share of uncorrelated artefacts in the judges' data, which must see through what a hacking policy says, and in the codec's,
    which must be able to say it."""
    shortcut: float = 0.9
    """P(artefact of the own emotion) in the RM's pre-training data; 0 is the control."""
    manifests: Mapping[str, ManifestConfig] = field(default_factory=dict)
    """A user's own data by split (a key of ``sizes``, ``annotated``), or by prompts (``rl``, ``eval``)."""
    annotated: int = 300
    """Human-annotated utterances for the RM's fine-tuning (simulated raters)."""
    raters: int = 3
    """Raters an annotated utterance."""
    rater_noise: float = 0.3
    """See `SplitConfig.rater_noise`."""
    rl_prompts: int = 512
    """RL prompts."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    """Stage ``codec``."""
    recogniser: RecogniserConfig = field(default_factory=RecogniserConfig)
    """Stages ``recogniser``: the reward's and the judge's."""
    val_judge: JudgeConfig = field(default_factory=JudgeConfig)
    """Stage ``judge``: gold for curves, tuning and search."""
    test_judge: JudgeConfig = field(default_factory=lambda: JudgeConfig(architecture="stats_tdnn", steps=3000))
    """Stage ``judge``: gold at declared points, for reports."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    """Stage ``pretrain``."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Stage ``finetune``."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """The policy's network."""
    base: SftConfig = field(default_factory=lambda: SftConfig(steps=6000, lr=3e-3))
    """Stage ``base``: the pre-trained policy, one for the world."""
    sft: SftConfig = field(default_factory=lambda: SftConfig(lr=3e-4))
    """Stage ``sft``: fine-tuned from it on the seed's own utterances, which are of the same kind: a tenth of its rate."""
    optimize: OptimizeConfig = field(default_factory=OptimizeConfig)
    """Stage ``optimize``."""
    examine: ExamineConfig = field(default_factory=ExamineConfig)
    """Stage ``examine``."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    """Stage ``score``."""
    yardsticks: YardstickConfig = field(default_factory=YardstickConfig)
    """Stage ``yardsticks``."""
    diagnose: DiagnoseConfig = field(default_factory=DiagnoseConfig)
    """Stage ``diagnose``."""
    readings: int = 20
    """Stage ``voices``: plain readings by each other synthesiser, see `VoicesConfig`."""
    card: CardConfig = field(default_factory=CardConfig, metadata={"identity": False})
    """Stages ``validation``: the world card, no part of any cell."""
    third_judge: PhoneticJudgeConfig = field(default_factory=PhoneticJudgeConfig, metadata={"identity": False})
    """Stage ``phonetic_judge``: beside gold, in the world card."""

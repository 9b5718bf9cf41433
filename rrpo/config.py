"""Every number of what is trained and compared: codec, reward model, policy, optimisation, arm.

Frozen keyword-only dataclasses; `rrpo.corpus.config` says how to read them. `rrpo.profiles` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field


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

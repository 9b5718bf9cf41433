"""Configs of everything that is trained and compared: codec, reward model, policy, optimization and arm.

They are frozen keyword-only dataclasses; `rrpo.corpus.config` explains how to read them. `rrpo.profiles` combines them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from rrpo.identity import option
from rrpo.plugins import Choice


class Form(NamedTuple):
    """One variant of a computation, described by its formula."""

    equation: str
    """Formula in one line."""
    source: str
    """Authors or paper."""


REWARDS = {
    "hard_ce": Form("R = log p(e)", "DiffRO (arXiv 2507.05911)"),
    "smoothed_ce": Form("R = sum_k y'_k log p_k, y' of Eq. 2", "RRPO (arXiv 2512.04552), a reading of Eq. 6"),
    "full_l_ser": Form("R = -L_ser of Eq. 5", "RRPO (arXiv 2512.04552), as Eq. 6 is printed"),
    "bounded": Form(
        "R = p(e), the sigmoid of the log-odds of e", "PAR (arXiv 2502.18770) with a reference reward of log-odds 0"
    ),
    "clipped": Form("R = min(log p(e), log 0.9)", "a cap on the reward: no gain beyond a confidence of 0.9; ours"),
}
"""Rewards of the policy; e is the target emotion."""
COMBINATIONS = {
    "mean": Form("R = mean_m R_m - variance_penalty var_m R_m", "Coste et al. 2024 (arXiv 2310.02743): mean and UWO"),
    "worst": Form("R = min_m R_m", "Coste et al. 2024 (arXiv 2310.02743): WCO"),
    "weights": Form(
        "R of the model with the mean of M fine-tunings' weights", "WARM: Ramé et al. 2024 (arXiv 2401.12187)"
    ),
}
"""Ways to combine several reward models; R_m is member m's log p of the target emotion."""
MEMBER_STRIDE = 100_000
"""Offset between the seeds of two reward models that an arm combines; larger than the range of experiment seeds."""
ADV_NORMS = ("absolute", "relative")
"""ε_adv as in the paper, or as a fraction of ||h'||."""
RELAXATIONS = {
    "gumbel": Form(
        "softmax((l + G) / τ), G with argmax(l + G) = the sampled token", "DiffRO (arXiv 2507.05911); 1411.0030"
    ),
    "probabilities": Form("softmax(l / τ)", "the same without noise; ours"),
}
"""Relaxation of a sampled token for the gradient: Gumbel-Softmax conditioned on it, or the policy's own probabilities."""
SCHEDULES = ("constant", "linear", "cosine")
"""Learning rate of the policy after warm-up: unchanged, or decayed to zero, which is reached after the last update."""
PENALTIES = {
    "kl": Form("sum_t sum_k p log(p / q)", "DiffRO (arXiv 2507.05911), Eq. 6"),
    "chi2": Form("sum_t [sum_k p^2 / q - 1]", "Laidlaw et al. 2024 (arXiv 2403.03185), position by position"),
}
"""Penalty on the distance to the SFT policy: KL(pi || pi_SFT), or the chi-squared divergence, which weighs large ratios more."""
RM_DATA = ("biased", "oracle")
"""Pre-training data with the planted shortcut, or a large unbiased set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """Base of configs that check their values: those of fields declared by `option` with ``within``, and `demands`."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value that is not allowed; None is allowed where it is the default.

        Converts integers to floats in float fields, so that equal configs have equal keys.
        """
        for f in fields(self):
            value, within = getattr(self, f.name), f.metadata.get("within")
            if within and not (value is None and f.default is None) and not _is_within(value, within):
                allowed = f"in {within}" if isinstance(within, str) else f"one of {', '.join(within)}"
                raise ValueError(f"{f.name} must be {allowed}, got {value!r}")
            if str(f.type).startswith(("float", "tuple[float")):
                object.__setattr__(self, f.name, _as_float(value))
        for name, (valid, requirement) in self.demands().items():
            if not valid:
                raise ValueError(f"{requirement}, got {name}={getattr(self, name)!r}")

    def demands(self) -> dict[str, tuple[bool, str]]:
        """Return, for each field with a requirement that depends on other fields, whether it is met, and the requirement."""
        return {}


def _as_float(value: Any) -> Any:
    """Return an integer, or each of a tuple of numbers, as a float, and any other value unchanged."""
    if isinstance(value, tuple):
        return tuple(map(_as_float, value))
    return float(value) if type(value) is int else value


def _is_within(value: Any, within: str | Iterable[str]) -> bool:
    """Return whether the value is one of the names, or it, or each number of a tuple (at least one), lies in the interval."""
    if not isinstance(within, str):
        return value in within
    low, high = map(float, within[1:-1].split(","))
    numbers = value if isinstance(value, tuple) else (value,)
    return len(numbers) > 0 and all(
        (low < number or (low == number and within[0] == "["))
        and (number < high or (number == high and within[-1] == "]"))
        for number in numbers
    )


def _divisible(dim: int, heads: int) -> tuple[bool, str]:
    """Return whether a width suits the rotations of that many attention heads, and the requirement."""
    return dim > 0 and dim % (2 * heads) == 0, f"dim must be a multiple of 2 x heads = {2 * heads}"


MOST_CODES = 2**15
"""Largest V: samples are stored as 16-bit integers."""


@dataclass(frozen=True, kw_only=True)
class CodecConfig(Checked):
    """Codec: mel -> tokens at 25 Hz -> mel, with finite scalar quantization and a speaker-conditioned source-filter decoder."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    """FSQ levels; V is their product (CosyVoice2: 3^8 = 6561), at most `MOST_CODES`."""
    dim: int = 128
    """Channels of encoder and decoder."""
    steps: int = option(6000, within="[0, inf)")
    """Training steps. Many small steps, because rare artefacts are learned last: at half the learning rate, 4,000 steps do not
    suffice for hum and whine."""
    batch: int = option(16, within="[1, inf)")
    """Crops per step."""
    crop: int = option(64, within="[1, inf)")
    """Frames per crop."""
    lr: float = option(2e-3, within="(0, inf)")
    """Peak learning rate; cosine decay to zero."""
    seed: int = 0
    """Redraws initialization, data order and noise of this stage."""

    def demands(self) -> dict[str, tuple[bool, str]]:
        """Return the limit on V."""
        return {"levels": (math.prod(self.levels) <= MOST_CODES, f"levels must have a product of at most {MOST_CODES}")}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A pre-trained speech encoder from a local Hugging Face folder: wav2vec 2.0, WavLM, HuBERT or a similar model."""

    digest: str
    """Hash of its files; part of the keys of stages."""
    path: str = field(metadata={"identity": False})
    """Folder. Not part of any key; stored reward models load it from there, so a folder that is moved must leave a link."""
    tuned: bool = False
    """Whether its Transformer is trained; its convolutions are always frozen."""


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(Checked):
    """The emotion reward model: subsampling convolution -> Transformer encoder -> h' -> attentive pooling -> logits."""

    dim: int = 96
    """D, width of h' ``[B, T', D]``; a multiple of 2 x heads."""
    layers: int = option(2, within="[0, inf)")
    """Transformer encoder layers."""
    heads: int = option(4, within="[1, inf)")
    """Attention heads."""
    subsample: int = 4
    """T / T', a power of 2: one convolution of stride 2 per factor of 2."""
    dropout: float = option(0.1, within="[0, 1)")
    """Dropout probability, in training only."""
    encoder: EncoderConfig | None = option(None, off=None)
    """Encoder of waveforms that replaces all layers before the pooling; the sizes above then have no effect."""

    def demands(self) -> dict[str, tuple[bool, str]]:
        """Return the requirements on width and subsampling."""
        halved = self.subsample > 0 and self.subsample & (self.subsample - 1) == 0
        return {
            "subsample": (halved, "subsample must be a power of two (1, 2, 4 or 8)"),
            "dim": _divisible(self.dim, self.heads),
        }


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Checked):
    """Pre-training of the RM on the biased set (and, on other data, of the oracle RM)."""

    steps: int = option(400, within="[0, inf)")
    """Updates."""
    batch: int = option(32, within="[1, inf)")
    """Utterances per step."""
    lr: float = option(1e-3, within="(0, inf)")
    """Adam learning rate; cosine decay to zero."""
    shuffle_labels: bool = option(False, off=False)
    """Permute the labels, which makes the RM a placebo."""
    model: RewardModelConfig = field(default_factory=RewardModelConfig)
    """Network."""
    seed: int = 0
    """Redraws initialization, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class RegularizerConfig(Checked):
    """Strengths of RRPO's three regularizers and of those from plugins. At its identity value each is off, on the same code
    path."""

    epsilon: float = option(0.1, off=0.0, within="[0, 1)")
    """ε of label smoothing, Eq. 2; the paper's value 0.1; range [0, 1); off at 0."""
    mix_probability: float = option(1.0, off=0.0, within="[0, 1]")
    """Share of utterances that energy-adaptive mixup (Eq. 3) mixes; the paper mixes all; range [0, 1]; off at 0."""
    mix_db_low: float = option(-5.0, within="(-inf, inf)")
    """r_min in dB, partner relative to host: U[-5, 10] in EAM's source (arXiv 2512.04551); RRPO gives no range."""
    mix_db_high: float = option(10.0, within="(-inf, inf)")
    """r_max in dB, partner relative to host; source as for ``mix_db_low``. The mean λ is .154 (.126 with r_max = 5 dB)."""
    alpha: float = option(0.5, off=0.0, within="[0, inf)")
    """α, weight of L_adv in Eq. 5; the paper's value 0.5; range [0, inf); off at 0."""
    epsilon_adv: float = option(0.5, within="[0, inf)")
    """ε_adv, L2 norm of δ over ``[T', D]`` in Eq. 4; the paper's value 0.5; range [0, inf)."""
    adv_norm: str = option("absolute", within=ADV_NORMS)
    """``absolute`` as in the paper, or ``relative``: ε_adv is a fraction of ||h'||, which makes it independent of length."""
    soft_votes: bool = option(False, off=False)
    """Control arm for label smoothing: use the raters' vote shares as the target instead of the majority label."""
    added: tuple[Choice, ...] = option((), off=())
    """Additional active regularizers (`rrpo.regularizers.REGULARIZERS`) with their strengths; set by `configured`."""

    def demands(self) -> dict[str, tuple[bool, str]]:
        """Return the order of the two levels."""
        return {"mix_db_low": (self.mix_db_low <= self.mix_db_high, "mix_db_low must not exceed mix_db_high")}


OFF = RegularizerConfig(epsilon=0.0, mix_probability=0.0, alpha=0.0)
"""All three at their identity value: plain fine-tuning, as for DiffRO's reward model."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Checked):
    """Robust fine-tuning of the pre-trained RM on the annotated set, Eq. 5."""

    steps: int = option(200, within="[0, inf)")
    """Updates; 0 keeps the pre-trained RM."""
    batch: int = option(32, within="[1, inf)")
    """Utterances per step."""
    lr: float = option(3e-4, within="(0, inf)")
    """Adam learning rate (the paper's RM: 1e-5, on a far larger model)."""
    regularizers: RegularizerConfig = field(default_factory=RegularizerConfig)
    """LS, EAM, Adv."""
    seed: int = 0
    """Redraws data order and noise of this stage, which starts from trained weights."""


@dataclass(frozen=True, kw_only=True)
class MineConfig:
    """Policy samples that fooled the reward model, to be added to its fine-tuning data."""

    limit: int
    """Maximum number of added samples; those with the highest reward-model confidence come first."""


@dataclass(frozen=True, kw_only=True)
class CombineConfig:
    """Combination of several reward models of one seed."""

    combination: str
    """One of `COMBINATIONS`."""
    variance_penalty: float = option(0.0, off=0.0)
    """λ of ``mean``, weight of the members' variance; nats of reward per squared nat."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(Checked):
    """The token language model (Qwen2 architecture)."""

    dim: int = 128
    """Hidden size (CosyVoice2: 896); a multiple of 2 x heads."""
    layers: int = option(3, within="[1, inf)")
    """Decoder layers (CosyVoice2: 24)."""
    heads: int = option(4, within="[1, inf)")
    """Attention heads (CosyVoice2: 14, with 2 key-value heads)."""
    paced: bool = True
    """Advance the rotary positions of the text at the pace of speech: each phone by the mean number of tokens per phone for the
    prompt's emotion and speaker, measured on the base policy's data. This lets a small model find its place in the text. False
    uses CosyVoice2's plain positions. Declared default."""
    max_tokens: int = option(80, within="[1, inf)")
    """Maximum roll-out length in tokens; a sample that reaches it is truncated and counted."""

    def demands(self) -> dict[str, tuple[bool, str]]:
        """Return the requirement on the width."""
        return {"dim": _divisible(self.dim, self.heads)}


@dataclass(frozen=True, kw_only=True)
class SftConfig(Checked):
    """Supervised training of the policy: of the world's base policy (in CosyVoice2's place), and from it of each seed's SFT
    policy."""

    steps: int = option(300, within="[0, inf)")
    """Updates."""
    batch: int = option(16, within="[1, inf)")
    """Utterances per step."""
    lr: float = option(1e-3, within="(0, inf)")
    """Peak learning rate; cosine decay to a twentieth."""
    model: PolicyConfig = field(default_factory=PolicyConfig)
    """Network."""
    tag_dropout: float = option(0.0, off=0.0, within="[0, 1)")
    """Share of a batch's utterances whose emotion tag is replaced by the null tag; in half of them the speaker tag is replaced
    too. Guidance conditions on these null tags. Range [0, 1), off at 0 (ZET-Speech: .1 to .2)."""
    style_weight: float = option(0.0, off=0.0, within="[0, inf)")
    """Weight of EmoMix's style loss on Gram matrices, `rrpo.training.style`; range [0, inf), off at 0."""
    seed: int = 0
    """Redraws initialization, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(SftConfig):
    """Supervised training, from the base policy, of a policy that takes the speaker from a reference utterance instead of a
    table, as in ZET-Speech (arXiv 2305.13831; stage ``zero_shot``). There is no style loss."""

    steps: int = option(1200, within="[0, inf)")
    """Updates."""
    lr: float = option(2e-3, within="(0, inf)")
    """Peak learning rate; cosine decay to zero."""
    utterances: int = 3000
    """Number of utterances by the speakers of policy and reward model, including neutral ones; each is its own reference."""
    references: int = 2
    """Utterances per unseen speaker and emotion; the neutral ones are the references for sampling."""
    dim: int = 128
    """Width of the reference encoder and of the emotion classifier."""
    size: int = 16
    """Size of a speaker vector; declared default."""
    reversal: float = 1.0
    """λ, factor of the reversed gradient of the emotion classifier on the speaker vector; range [0, inf); 0 leaves emotion in
    the vector. Declared default."""


@dataclass(frozen=True, kw_only=True)
class ReferenceProbeConfig:
    """Probes of what the vectors of unseen speakers encode (stage ``reference_probe``)."""

    folds: int = 4
    """Number of folds, over speakers, in the cross-validation of the emotion probe."""


@dataclass(frozen=True, kw_only=True)
class PrefixClassifierConfig(Checked):
    """Classifier of token prefixes for soft-label guidance (stage ``prefix_classifier``)."""

    dim: int = 128
    """Width of the recurrent state."""
    dropout: float = option(0.3, within="[0, 1)")
    """Dropout probability of whole tokens and of the state before the last layer, in training only. Without token dropout the
    classifier memorizes 1,500 utterances within 3,000 updates (held-out loss .9 nats after 1,500, 2.2 after 3,000)."""
    steps: int = option(1500, within="[0, inf)")
    """Updates."""
    batch: int = option(32, within="[1, inf)")
    """Utterances per step."""
    lr: float = option(2e-3, within="(0, inf)")
    """Adam learning rate; cosine decay to zero."""
    seed: int = 0
    """Redraws initialization, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class GuidedConfig:
    """Sampling of the evaluation prompts by guided decoding (stage ``guided``), without optimization."""

    guidance: Choice
    """One of `rrpo.models.guidance.GUIDANCE` with its options."""
    prompts: int
    """Number of sampled evaluation prompts, `OptimizeConfig.final_prompts`."""
    batch: int
    """Prompts per sampling batch, `OptimizeConfig.eval_prompts`."""
    seed: int = 0
    """Redraws the evaluation's noise."""


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig(Checked):
    """Policy optimization, by default DiffRO's (Eq. 1 and 6), exactly as described in ``rrpo.optimizers.diffro``."""

    optimizer: Choice = option(Choice(name="diffro"), off=Choice(name="diffro"))
    """Algorithm that turns roll-outs into losses: one of `rrpo.optimizers.OPTIMIZERS` with its own options. The fields below
    apply to all optimizers, except that τ, ``relaxation`` and ``gradient_scale`` affect only those that relax tokens, as DiffRO
    does; that ``reward`` and its weights do not affect Emo-DPO on pairs of speech; and that GRPO with the KL in the reward has
    no ``penalty``."""
    steps: int = option(140, within="[0, inf)")
    """Batches of roll-outs, with one update each unless the optimizer makes more; 0 keeps the SFT policy."""
    batch: int = option(32, within="[1, inf)")
    """Roll-outs per step."""
    lr: float = option(2e-4, within="(0, inf)")
    """Adam learning rate (HPRO's public recipe: 1e-5, on a 0.5 B model); chosen by step 1 of ``docs/regime.md``."""
    schedule: str = option("constant", off="constant", within=SCHEDULES)
    """One of `SCHEDULES`: the learning rate after warm-up."""
    warmup: int = option(10, off=0, within="[0, inf)")
    """Updates over which the learning rate rises linearly to ``lr``; 0 starts at ``lr``. The length of Adam's first steps is its
    learning rate, whatever the gradient: without warm-up, four of them (at 3e-3) move the policy 1 nat per token away from SFT,
    and gold falls by 8 to 16 points before any arm has learned anything. Declared default."""
    beta: float = option(0.001, off=0.0, within="[0, inf)")
    """β, weight of the full-vocabulary KL to the SFT reference, summed over an utterance (DiffRO 0.1, HPRO 0.05 -> 0.02)."""
    penalty: str = option("kl", off="kl", within=PENALTIES)
    """One of `PENALTIES`, weighted by β: Eq. 6's KL, or ``chi2`` (arXiv 2403.03185); see `rrpo.optimizers.scoring.score`."""
    tau: tuple[float, ...] = option((1.0,), within="(0, inf)")
    """τ of the Gumbel-Softmax relaxation; each value applies to an equal share of training (HPRO: 2 -> 1 -> 0.8)."""
    reward: str = option("hard_ce", within=REWARDS)
    """One of `REWARDS`."""
    relaxation: str = option("gumbel", off="gumbel", within=RELAXATIONS)
    """One of `RELAXATIONS`: the source of the straight-through tokens' gradient."""
    emotion_weight: float = option(1.0, off=1.0, within="[0, inf)")
    """Weight of the emotion reward in the objective; range [0, inf). DiffRO and RRPO use 1; 0 leaves only the content reward and
    the KL (control arm ``content_only``)."""
    gradient_scale: float = option(1.0, off=1.0, within="[0, inf)")
    """Constant factor on the gradient that the emotion reward model sends into the policy's frames; range [0, inf), off at 1.
    Reported losses are unscaled."""
    content_weight: float = option(0.5, off=0.0, within="[0, inf)")
    """Weight of the phone recognizer's CTC loss per phone in the reward (DiffRO's multi-task reward); 0 = control arm."""
    grad_clip: float = option(1.0, within="(0, inf)")
    """Maximum L2 norm of the policy's gradient (clipping); declared default."""
    checkpoints: tuple[int, ...] = (0, 6, 12, 20, 35, 70, 140)
    """Steps at which the evaluation prompts are sampled and stored as tokens; the first and the last are added, later ones
    ignored. They are denser early, because KL rises fastest there."""
    eval_prompts: int = option(300, within="[1, inf)")
    """Number of evaluation prompts sampled at every checkpoint but the last: the first ones of the final set, the same for every
    arm and seed. On CosyVoice2, all final prompts are sampled at every checkpoint."""
    final_prompts: int = 1200
    """Number of evaluation prompts sampled after the last update. They determine the primary outcome."""
    seed: int = 0
    """Redraws prompt order and noise of this stage, which starts from the SFT policy."""

    def demands(self) -> dict[str, tuple[bool, str]]:
        """Return the order of the two numbers of prompts."""
        return {"eval_prompts": (self.eval_prompts <= self.final_prompts, "eval_prompts must not exceed final_prompts")}


@dataclass(frozen=True, kw_only=True)
class DrawsConfig:
    """Samples of the SFT policy for best-of-n, shared by all reward models."""

    n: int
    """Samples per prompt."""
    prompts: int
    """Number of evaluation prompts, taken from the start."""
    final_prompts: int
    """As in `OptimizeConfig`: the first sample of each prompt is the evaluation's own."""
    eval_prompts: int
    """Prompts per sampling batch, as in `OptimizeConfig`."""
    seed: int = 0
    """Redraws the noise."""


@dataclass(frozen=True, kw_only=True)
class BestOfConfig:
    """Best-of-n: select each prompt's sample with the lowest cost, weighted as in policy optimization."""

    reward: str = "hard_ce"
    """One of `REWARDS`."""
    emotion_weight: float = option(1.0, off=1.0)
    """As in `OptimizeConfig`."""
    content_weight: float = option(0.5, off=0.0)
    """As in `OptimizeConfig`."""
    eval_prompts: int = 300
    """Number of prompts measured at every n but the last."""


@dataclass(frozen=True, kw_only=True)
class GradientsConfig(Checked):
    """Comparison of the optimizers' gradients for one reward; see `rrpo.diagnostics.gradients`."""

    updates: int = option(0, within="[0, inf)")
    """Updates of the optimization after which gradients are measured; 0 is the SFT policy. The optimization is rerun up to it."""
    optimize: OptimizeConfig = field(default_factory=OptimizeConfig)
    """The optimization."""
    batches: int = option(24, within="[2, inf)")
    """Batches of roll-outs, one gradient each; the same for every optimizer."""
    reference_batches: int = option(384, within="[2, inf)")
    """Additional batches, whose mean REINFORCE gradient serves as the reference for the true gradient: 12,288 roll-outs. The
    column ``reference_noise`` tells whether they were enough."""
    batch: int = option(32, within="[1, inf)")
    """Roll-outs per batch."""
    prompts: int = option(100, within="[1, inf)")
    """Number of evaluation prompts, taken from the start, on which a step along the mean gradient is measured."""
    continuations: int = option(4, within="[2, inf)")
    """How many times an utterance is redrawn from a swapped token on; see `rrpo.diagnostics.redrawn`."""
    kl: float = option(0.05, within="(0, inf)")
    """Size of that step: KL to the policy at which it starts, nats per token."""


BEST_OF_DRAWS = 19200
"""Maximum number of samples for best-of-n: n for each of the first ``BEST_OF_DRAWS / n`` evaluation prompts, 1,200 at n = 16."""


@dataclass(frozen=True, kw_only=True)
class ArmConfig(Checked):
    """Settings that distinguish arms. The defaults are ``rrpo``; ``diffro`` has all three regularizers at identity."""

    regularizers: RegularizerConfig = field(default_factory=RegularizerConfig)
    """LS, EAM and Adv in the reward model's fine-tuning."""
    rm_data: str = option("biased", within=RM_DATA)
    """Pre-training set, one of `RM_DATA`; ``oracle`` is the large unbiased one."""
    finetune: bool = True
    """False keeps the pre-trained RM."""
    shuffle_labels: bool = option(False, off=False)
    """Placebo RM: permute the pre-training labels."""
    reward: str = "hard_ce"
    """One of `REWARDS`. The arm's value always replaces `OptimizeConfig.reward`."""
    content_weight: float | None = option(None, off=None)
    """Overrides `OptimizeConfig.content_weight`."""
    steps: int | None = option(None, off=None)
    """Overrides `OptimizeConfig.steps`: 0 is the SFT policy; fewer steps are early stopping (a τ schedule is spread over these
    steps)."""
    emotion_weight: float | None = option(None, off=None)
    """Overrides `OptimizeConfig.emotion_weight`; 0 is content only."""
    gradient_scale: float | None = option(None, off=None)
    """Overrides `OptimizeConfig.gradient_scale`."""
    match_gradient: bool = option(False, off=False)
    """Multiply the gradient scale by one factor per seed, at which the reward's gradient through the SFT policy's tokens is as
    large as RRPO's; see `rrpo.optimizers.matching` (control arm ``diffro_scaled``: vanilla DiffRO with RRPO's gradient size)."""
    relaxation: str | None = option(None, off=None)
    """Overrides `OptimizeConfig.relaxation`."""
    schedule: str | None = option(None, off=None)
    """Overrides `OptimizeConfig.schedule`."""
    shortcut: float | None = option(None, off=None, within="[0, 1]")
    """Overrides `Profile.shortcut`."""
    rater_noise: float | None = option(None, off=None, within="[0, inf)")
    """Overrides `Profile.rater_noise`."""
    batch: int | None = option(None, off=None)
    """Overrides `OptimizeConfig.batch`."""
    rm_utterances: int | None = option(None, off=None, within="[1, inf)")
    """Overrides the size of the biased pre-training set (``Profile.sizes["rm_pretrain"]``)."""
    rm_speakers: int | None = option(None, off=None, within="[1, inf)")
    """Overrides `Profile.rm_speakers`: use only this many speakers, in pre-training and in the annotated set."""
    annotated: int | None = option(None, off=None, within="[1, inf)")
    """Overrides `Profile.annotated`: utterances for fine-tuning."""
    annotated_artefacts: float | None = option(None, off=None, within="[0, 1]")
    """Overrides `Profile.annotated_artefact_rate`."""
    rm_lr: float | None = option(None, off=None, within="(0, inf)")
    """Overrides `FinetuneConfig.lr`."""
    lr: float | None = option(None, off=None)
    """Overrides `OptimizeConfig.lr`, for a tuned arm."""
    beta: float | None = option(None, off=None)
    """Overrides `OptimizeConfig.beta`."""
    optimizer: Choice | None = option(None, off=None)
    """Overrides `OptimizeConfig.optimizer`; created by ``OPTIMIZERS.choice(name, **options)`` of `rrpo.optimizers`."""
    penalty: str | None = option(None, off=None)
    """Overrides `OptimizeConfig.penalty`."""
    tau: tuple[float, ...] | None = option(None, off=None)
    """Overrides `OptimizeConfig.tau`."""
    tag_dropout: float = option(0.0, off=0.0, within="[0, 1)")
    """See `SftConfig.tag_dropout`. A nonzero value gives this arm a different SFT policy to start from."""
    style_weight: float = option(0.0, off=0.0, within="[0, inf)")
    """See `SftConfig.style_weight`. A nonzero value gives this arm a different SFT policy to start from."""
    reversal: float | None = option(None, off=None, within="[0, inf)")
    """See `ZeroShotConfig.reversal`: the policy derives speakers from references and speaks as speakers unseen in training; 0
    leaves emotion in their vectors. None: the policy's own speakers, from its table. Only without optimization."""
    guidance: Choice | None = option(None, off=None)
    """Guided decoding from the SFT policy instead of optimization; created by ``GUIDANCE.choice(name, **options)`` of
    `rrpo.models.guidance`."""
    best_of: int | None = option(None, off=None, within=f"[1, {BEST_OF_DRAWS}]")
    """n of best-of-n, instead of optimization: select, from n samples of the SFT policy, the one with the best reward
    (`DrawsConfig`)."""
    rm_seed: int | None = option(None, off=None)
    """Seed of the reward model alone, instead of the experiment's seed: initialization, order and noise of its pre-training and
    fine-tuning (replicated pilot, see `ablations.pilot`)."""
    members: int = option(1, off=1, within="[1, inf)")
    """M, number of reward models that are combined into the arm's: the seed's own, and M - 1 that are retrained on the same data
    with different initialization, order and noise of pre-training and fine-tuning (of fine-tuning alone for ``weights``)."""
    combination: str | None = option(None, off=None)
    """One of `COMBINATIONS`: how the members are combined. None for a single member."""
    variance_penalty: float = option(0.0, off=0.0, within="[0, inf)")
    """λ, weight of the members' variance when combined by ``mean``; range [0, inf), off at 0."""
    rounds: int = option(0, off=0, within="[0, inf)")
    """Rounds of an iterated reward model (arXiv 2505.18126), off at 0. Each round optimizes a policy, labels its answers to
    training prompts that fool the reward model by the `val` judge, adds them to the annotated set, and fine-tunes the reward
    model from the start on both. Every policy starts from SFT."""
    policy_seed: int | None = option(None, off=None)
    """Seed of the optimization alone, instead of the experiment's seed: RL prompts, roll-outs, evaluation noise."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of its range. Values that override those of `OptimizeConfig` have its ranges."""
        overrides: dict[str, Any] = {f.name: getattr(self, f.name, None) for f in fields(OptimizeConfig)}
        OptimizeConfig(**{name: value for name, value in overrides.items() if value is not None})
        super().__post_init__()

    def demands(self) -> dict[str, tuple[bool, str]]:
        """Return which fields need or exclude others."""
        unoptimized = self.best_of is not None or self.guidance is not None
        from_sft = not (self.tag_dropout or self.style_weight)
        known = self.combination is None if self.members == 1 else self.combination in COMBINATIONS
        return {
            "reversal": (
                self.reversal is None or (self.steps == 0 and self.best_of is None and not self.style_weight),
                "reversal needs steps=0, without best_of and style_weight",
            ),
            "best_of": (
                self.best_of is None or (self.guidance is None and from_sft),
                "best_of excludes guidance, tag_dropout and style_weight",
            ),
            "match_gradient": (
                not (self.match_gradient and unoptimized),
                "match_gradient needs an optimized policy, without best_of and guidance",
            ),
            "rounds": (
                self.rounds == 0 or (self.finetune and not unoptimized),
                "rounds above 0 need finetune and an optimized policy, without best_of and guidance",
            ),
            "combination": (
                known and (self.finetune or self.combination != "weights"),
                f"combination must be one of {', '.join(COMBINATIONS)} for 2 members or more ('weights' needs finetune), and "
                "None for one",
            ),
            "variance_penalty": (
                self.variance_penalty == 0 or self.combination == "mean",
                "variance_penalty needs combination='mean'",
            ),
        }

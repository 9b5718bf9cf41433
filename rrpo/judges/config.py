"""Every number of what is measured on a cell: recognisers, judges, examination, test stage, optional listeners."""

from __future__ import annotations

from dataclasses import dataclass

from rrpo.corpus.config import ARTEFACTS
from rrpo.plugins import Choice

KINDS = (*ARTEFACTS, "silence", "drawl", "repetition", "length")
"""Every kind of artefact that can be flagged in a sample: the planted ones, then those that no emotion has as its shortcut."""


@dataclass(frozen=True, kw_only=True)
class RecogniserConfig:
    """A CTC phone recogniser on F."""

    dim: int = 128
    """Channels."""
    steps: int = 4500
    """Updates."""
    batch: int = 16
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
    steps: int = 3000
    """Updates."""
    batch: int = 16
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
class FidelityConfig:
    """How far a reward model's gradient through the tokens predicts what other tokens do, as `rrpo.diagnostics.fidelity` says."""

    prompts: int = 100
    """Of the evaluation prompts, the first; the SFT policy says each once."""
    one_draws: int = 3
    """Swaps of one token a sample."""
    many_draws: int = 3
    """Swaps of many tokens at once a sample."""
    share: float = 0.3
    """Share of a sample's tokens that are swapped when many are; range (0, 1]."""
    seed: int = 0
    """The experiment's seed: redraws samples and swaps."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """The test stage: held-out judges on the samples that the policy optimisation stored."""

    audio_prompts: int = 10
    """Prompts whose audio is kept as wav files, the same for every arm; the emotions take turns."""


@dataclass(frozen=True, kw_only=True)
class AssessConfig:
    """What may be known of the stored samples without the held-out judge; nothing to set."""


@dataclass(frozen=True, kw_only=True)
class ExamineSetConfig:
    """One more accuracy of a finished reward model, on a set that may not be there; nothing to set."""


@dataclass(frozen=True, kw_only=True)
class RecognitionConfig:
    """Weighted and unweighted accuracy of a finished reward model on a user's test set."""

    name: str
    """Of the set: part of the names of the scalars."""


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What a regulariser of a plugin measures in every finished reward model, for its own manipulation check."""

    regularizer: Choice
    """Which; its strengths do not matter."""


@dataclass(frozen=True, kw_only=True)
class VocodeConfig:
    """Samples as waves, for the listeners that need optional packages."""

    prompts: int = 100
    """First evaluation prompts that are vocoded, of the middle and the last checkpoint; of SFT, once a seed."""


@dataclass(frozen=True, kw_only=True)
class PhoneticsConfig:
    """The third judge and prosody, on vocoded samples; nothing to set."""


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """How strongly samples carry emotions, by acoustics and by gold's profile."""

    shrinkage: float = 0.1
    """Of the discriminant's covariance: its diagonal is raised by this share; declared default."""


@dataclass(frozen=True, kw_only=True)
class SpeakersConfig:
    """Mean voices of the policy's speakers, once for a world."""

    utterances: int = 200
    """Held-out utterances by the policy's speakers, half of them for the voices, half to measure with."""


@dataclass(frozen=True, kw_only=True)
class VoiceConfig:
    """Similarity of vocoded samples to their speaker; nothing to set."""


@dataclass(frozen=True, kw_only=True)
class ContentConfig:
    """Phone errors that a published recogniser hears in vocoded samples of the last checkpoint, and of SFT once a seed."""

    recogniser: str
    """One of `rrpo.judges.content.RECOGNISERS`."""
    language: str
    """Of the texts, by espeak-ng's code."""
    prompts: int = 20
    """First evaluation prompts that are heard, at most `VocodeConfig.prompts`; Whisper base takes some 1 s a clip."""


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Which predictor of naturalness is valid, once for a world."""

    planted: int = 20
    """Held-out utterances that are heard clean and clicked."""
    separation: float = 0.3
    """By how much clean must stand above clicked re-synthesis for a predictor to be used."""


@dataclass(frozen=True, kw_only=True)
class NaturalnessConfig:
    """Predicted naturalness of vocoded samples of the last checkpoint, and of SFT once a seed."""

    prompts: int = 100
    """First evaluation prompts that are heard, at most `VocodeConfig.prompts`; a clip takes PLCMOS some 25 ms, DNSMOS .25 s."""


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Each arm's last samples of a seed, heard by every other arm's reward model; nothing to set."""

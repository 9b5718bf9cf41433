"""Configs of the corpus (features, world, splits, prompts) as frozen keyword-only dataclasses.

Here and in the other ``config`` modules, the docstring below each field gives the symbol in the paper, the paper's value, the
unit and the range. A *declared default* is a value without a source. The ``config`` modules do not import torch, which keeps
planning fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rrpo.identity import option

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
    """Samples between frames: 50 frames per second, two frames per token at 25 Hz (CosyVoice2's rates)."""
    n_mels: int = 80
    """M, number of mel bands."""
    f_max: float = 8000.0
    """Hz, upper edge of the highest band."""
    floor: float = 1e-5
    """Minimum mel power before the logarithm."""
    griffin_lim_steps: int = 8
    """Griffin-Lim iterations of the vocoder (mean error in log-mel of rendered speech: .44 nats at 1, .32 at 6, .31 at 8, .29 at
    12)."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """The simulated world: speakers, languages and the acoustics of emotion. Many seeds share one world."""

    seed: int = 0
    """Redraws speakers, texts and every world-level split."""
    audio: AudioConfig = field(default_factory=AudioConfig)
    """Feature settings shared by every model."""
    emotions: tuple[str, ...] = EMOTIONS
    """Classes that the renderer supports; ``neutral`` may be appended. K is their number, unless manifests define other
    classes."""
    language: str = "cmn"
    """Language of the policy and of the reward model's training data (the paper's is Mandarin)."""
    languages: tuple[str, ...] = ("cmn", "en", "de")
    """All languages of the world; the others serve as cross-language tests."""
    policy_speakers: int = 4
    """Speakers of SFT data, RL prompts and evaluation prompts (the paper: one male speaker)."""
    rm_speakers: int = 32
    """Speakers of the policy's language that only the reward model is trained on."""
    judge_speakers: int = 32
    """Speakers of the policy's language that only judges and recognizers are trained on, in addition to the policy's speakers."""
    foreign_speakers: int = 16
    """Speakers of each other language, for cross-language tests."""
    cue_spread: float = 1.0
    """Standard deviation of each prosodic cue around the mean of its emotion, in the renderer's units."""

    def __post_init__(self) -> None:
        """Raise ValueError if the emotions are not those of the renderer: artefact k is the shortcut of class k."""
        if self.emotions not in (EMOTIONS, (*EMOTIONS, "neutral")):
            raise ValueError(
                f"the renderer's emotions must be {EMOTIONS}, optionally followed by 'neutral'; got {self.emotions}. For other "
                "emotions, give manifests of your own speech"
            )


@dataclass(frozen=True, kw_only=True)
class ManifestConfig:
    """A user's corpus, as returned by `rrpo.corpus.intake.check_manifest`."""

    digest: str
    """Hash of its lines and audio; part of the keys of stages."""
    path: str = field(metadata={"identity": False})
    """JSON-lines file. Not part of any key, so the file may be moved; but reward models of waveforms read the recordings where
    they were when their utterances were first stored."""
    emotions: tuple[str, ...] = option((), off=())
    """Classes of all manifests of an experiment, if they include one that the world lacks; empty: the world's classes."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """One set of utterances drawn from the world."""

    name: str
    """Also selects the random stream: splits with different names are drawn independently."""
    size: int
    """Number of utterances."""
    speakers: str = "policy"
    """Group: ``policy``, ``rm``, ``judge`` (judge-only speakers), ``judge+policy``, ``foreign:LANG``, or ``all``."""
    voices: int | None = option(None, off=None)
    """Use only the first ``voices`` speakers of the group; None: all."""
    texts: str = "sft"
    """Text pool: a key of `rrpo.corpus.texts.POOLS` (disjoint pools), or ``random`` (random words)."""
    artefact_rate: float = option(0.0, off=0.0)
    """Fraction of utterances with an artefact drawn independently of the emotion."""
    shortcut: float = option(0.0, off=0.0)
    """Probability that an utterance has the artefact of its own emotion (planted bias; paper: real-world, unknown)."""
    misacted: float = option(0.0, off=0.0)
    """Probability that the speaker acts an emotion other than the requested one, which is the label. Excludes ``raters``."""
    parallel: bool = option(False, off=False)
    """Give each utterance a different emotion than without this option. Texts, speakers and noise stay the same, so the two
    splits together contain every text in two emotions."""
    raters: int = option(0, off=0)
    """Number of raters who vote on each utterance; 0: the only label is the rendered emotion (with ``misacted``, the requested
    one)."""
    rater_noise: float = option(0.0, off=0.0)
    """Temperature added to each rater's log-likelihood before voting; 0 = ideal observers sampling their posterior."""
    seed: int = 0
    """Seed of this split alone (the experiment's seed for the annotated set, 0 for world-level splits)."""
    manifest: ManifestConfig | None = option(None, off=None)
    """Use all utterances of this manifest instead of ``size`` rendered ones."""


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """Config of a ``speech`` stage, which writes the manifest and features of one split."""

    world: WorldConfig
    """World to draw from."""
    split: SplitConfig
    """Split to draw."""


@dataclass(frozen=True, kw_only=True)
class VoicesConfig:
    """Config of a ``voices`` stage: speech by another synthesizer, modified to the same cues; an unseen test domain."""

    world: WorldConfig
    """World that provides emotions, texts and features."""
    readings: int = 20
    """Number of plain readings; each is modified to every emotion."""
    texts: str = "judge_heldout"
    """Text pool, a key of `rrpo.corpus.texts.POOLS`."""
    engine: str
    """Synthesizer, a key of `rrpo.corpus.neural.ENGINES`."""


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Config of a ``prompts`` stage: texts with a speaker and a target emotion, without audio."""

    world: WorldConfig
    """World to draw from."""
    texts: str
    """Text pool: ``rl`` or ``eval``."""
    size: int
    """Number of prompts, balanced over emotions and speakers."""
    speakers: str = option("policy", off="policy")
    """Speaker group, as in `SplitConfig.speakers`; texts and emotions do not depend on it."""
    seed: int = 0
    """The experiment's seed for ``rl``; 0 for ``eval``, which all arms and seeds share."""
    manifest: ManifestConfig | None = option(None, off=None)
    """Use the prompts of this manifest: text, speaker, language and target emotion of each line. Audio is not needed."""

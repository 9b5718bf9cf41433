"""What is heard and who says it: features, world, splits, prompts, as frozen keyword-only dataclasses.

A docstring stands under each field, here and in the packages' other ``config`` modules: the symbol in the paper, the paper's
value, the unit and the range. A value that no source gives is called a *declared default*. None of them imports torch, so that
planning is instant.
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
    """Samples between frames: 50 frames a second, two frames a token at 25 Hz (CosyVoice2's rates)."""
    n_mels: int = 80
    """M, mel bands."""
    f_max: float = 8000.0
    """Hz, upper edge of the highest band."""
    floor: float = 1e-5
    """Smallest mel power before the logarithm."""
    griffin_lim_steps: int = 8
    """Griffin-Lim iterations of the vocoder (mean error in log-mel of rendered speech: .44 nats at 1, .32 at 6, .31 at 8, .29 at
    12)."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """The simulated world: who speaks, in which languages, how emotion sounds. One world serves many seeds."""

    seed: int = 0
    """Redraws speakers, texts and every world-level split."""
    audio: AudioConfig = field(default_factory=AudioConfig)
    """Feature settings shared by every model."""
    emotions: tuple[str, ...] = EMOTIONS
    """Classes that the renderer knows; ``neutral`` may be appended. K is their number, unless manifests bring others."""
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

    def __post_init__(self) -> None:
        """Raises ValueError for other emotions: artefact k is the shortcut of class k."""
        if self.emotions not in (EMOTIONS, (*EMOTIONS, "neutral")):
            raise ValueError(
                f"the renderer's emotions must be {EMOTIONS}, 'neutral' after them or not; got {self.emotions}. Others come with "
                "manifests of your own speech"
            )


@dataclass(frozen=True, kw_only=True)
class ManifestConfig:
    """A user's own corpus, as `rrpo.corpus.intake.check_manifest` found it."""

    digest: str
    """Hash of its lines and audio: what the stages' keys hold."""
    path: str = field(metadata={"identity": False})
    """JSON-lines file; moving it changes no key."""
    emotions: tuple[str, ...] = option((), off=())
    """The classes that all manifests of an experiment bring, where not all of them are the world's; empty: the world's."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """One set of utterances drawn from the world."""

    name: str
    """Also selects the random stream: two names never share draws."""
    size: int
    """Utterances."""
    speakers: str = "policy"
    """Group: ``policy``, ``rm``, ``judge`` (judge-only speakers), ``judge+policy``, ``foreign:LANG``, or ``all``."""
    voices: int | None = option(None, off=None)
    """Only the group's first so many speakers."""
    texts: str = "sft"
    """Disjoint text pool, a key of `rrpo.corpus.texts.POOLS`; or ``random`` (random words)."""
    artefact_rate: float = option(0.0, off=0.0)
    """Share of utterances that carry an artefact drawn independently of the emotion."""
    shortcut: float = option(0.0, off=0.0)
    """Probability that an utterance carries the artefact of its own emotion (planted bias; paper: real-world, unknown)."""
    misacted: float = option(0.0, off=0.0)
    """Probability that the speaker acts another emotion than the label, which then is what was asked for; not with raters."""
    parallel: bool = option(False, off=False)
    """Each utterance in another emotion than without it; texts, speakers and noise are the same, so that the two sets hold every
    text in two emotions."""
    raters: int = option(0, off=0)
    """Raters who vote on each utterance; 0 keeps the rendered emotion as the only label."""
    rater_noise: float = option(0.0, off=0.0)
    """Temperature added to each rater's log-likelihood before voting; 0 = ideal observers sampling their posterior."""
    seed: int = 0
    """Redraws this split alone (the experiment's seed for the annotated set, 0 for world-level splits)."""
    manifest: ManifestConfig | None = option(None, off=None)
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
    """Speech by another synthesiser than the world's, moved to the same cues: a test domain that no model has heard."""

    world: WorldConfig
    """Whose emotions, texts and features."""
    readings: int = 20
    """Plain readings; each is moved to every emotion."""
    texts: str = "judge_heldout"
    """Disjoint text pool."""
    engine: str
    """Of `rrpo.corpus.neural.ENGINES`."""


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Config of a ``prompts`` stage: texts with a speaker and a target emotion, no audio."""

    world: WorldConfig
    """Who speaks."""
    texts: str
    """Disjoint text pool: ``rl`` or ``eval``."""
    size: int
    """Prompts, balanced over emotions and speakers."""
    speakers: str = option("policy", off="policy")
    """Group, as `SplitConfig.speakers`; texts and emotions are the same for each."""
    seed: int = 0
    """The experiment's seed for ``rl``; 0 for ``eval``, which every arm and seed shares."""
    manifest: ManifestConfig | None = option(None, off=None)
    """A user's own prompts: text, speaker, language and target emotion of every line; audio is not needed."""

"""Sample sizes of the validation report."""

from __future__ import annotations

from dataclasses import dataclass, field

from rrpo.corpus.config import WorldConfig
from rrpo.judges.config import PredictorConfig


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Sample sizes of the validation report (``python -m ablations.validate``). They affect no training and no choice."""

    speech: int = 600
    """Utterances per test set of the judges: clean, by unseen speakers, with artefacts."""
    sentences: int = 2
    """Sentences per speaker and emotion for the phonetic measures."""
    levels: int = 9
    """Number of intensities per emotion, from the lowest to the highest that the world draws."""
    planted: int = 200
    """Utterances into which each kind of artefact is planted."""
    paired: int = 300
    """Utterances rendered twice: with artefacts that match the emotion, and with random ones."""
    words: int = 300
    """Random-word utterances for the recognisers."""
    sequences: int = 100
    """Token sequences optimized against the pre-trained RM without a policy."""
    hack_steps: int = 60
    """Updates per sequence."""
    transcribed: int = 40
    """Utterances of each English set that Whisper transcribes."""
    resamples: int = 1000
    """Resamples of each bootstrap interval."""


@dataclass(frozen=True, kw_only=True)
class SectionConfig:
    """Config of a ``validation`` stage: one section of the validation report."""

    section: str
    """Module of `rrpo.validation` that measures the section."""
    world: WorldConfig
    """The simulated world."""
    card: CardConfig
    """Sample sizes."""
    shortcut: float
    """`Profile.shortcut`."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """Criterion for using a predictor of naturalness."""
    installed: tuple[str, ...] = ()
    """Optional packages that are installed; a section is measured again when one is added."""

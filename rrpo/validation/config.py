"""How much the world card measures."""

from __future__ import annotations

from dataclasses import dataclass, field

from rrpo.corpus.config import WorldConfig
from rrpo.judges.config import PredictorConfig


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
    sequences: int = 100
    """Token sequences optimised against the pre-trained RM alone."""
    hack_steps: int = 60
    """Updates of each."""
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
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """By which a predictor of naturalness is used or not."""
    installed: tuple[str, ...] = ()
    """Optional packages that are installed: a section is measured again when one comes."""

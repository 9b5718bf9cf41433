"""RAVDESS: ``Actor_NN/MM-VC-EE-II-SS-RR-AA.wav``, English, 24 actors, 48 kHz.

The numbers are modality, vocal channel, emotion, intensity, statement, repetition, actor. Songs are skipped. *Calm* and *disgust*
are not among the package's emotions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rrpo.corpus.readers.base import READERS, Recording, Skipped
from rrpo.corpus.readers.named import NamedFiles

EMOTIONS = dict(
    zip(
        ("01", "02", "03", "04", "05", "06", "07", "08"),
        ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
        strict=True,
    )
)
"""Emotion code -> name in the documentation of the corpus."""
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
"""Statement code -> transcript."""
SPEECH = "01"
"""Vocal channel of speech; ``02`` is song."""


class Ravdess(NamedFiles):
    """The speaker is the actor's number."""

    labels: Mapping[str, str] = {name: name for name in ("angry", "happy", "sad", "surprised", "fearful", "neutral")}
    name = re.compile(r"\d\d-(?P<channel>\d\d)-(?P<emotion>\d\d)-\d\d-(?P<sentence>\d\d)-\d\d-(?P<speaker>\d\d)")
    layout = "seven numbers joined by hyphens, such as 03-01-05-01-02-01-12"

    emotions = EMOTIONS
    sentences = STATEMENTS
    language = "en"

    def recording(self, audio: Path, tags: re.Match[str]) -> Recording | Skipped:
        """As `NamedFiles.recording`."""
        if tags["channel"] != SPEECH:
            return Skipped(entry=str(audio), reason="song, not speech")
        return super().recording(audio, tags)


READERS.register("ravdess", Ravdess())

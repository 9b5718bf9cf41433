"""EMOVO: ``<speaker>/<emotion>-<speaker>-<sentence>.wav``, Italian, 6 actors, 14 sentences, 48 kHz.

*Disgust* (dis) is not among the package's emotions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rrpo.corpus.readers.base import READERS, Recording, Skipped
from rrpo.corpus.readers.named import NamedFiles

EMOTIONS = {
    "neu": "neutral",
    "dis": "disgust",
    "gio": "joy",
    "pau": "fear",
    "rab": "anger",
    "sor": "surprise",
    "tri": "sadness",
}
"""First letters of the Italian word -> emotion."""
SENTENCES = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "l1": "L'autunno prossimo Tony partirà per la Spagna nella prima metà di ottobre.",
    "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata.",
    "l3": "Un attimo dopo s'è incamminato ed è inciampato.",
    "l4": "Vorrei il numero telefonico del signor Piatti.",
    "n1": "La casa forte vuole col pane.",
    "n2": "La forza trova il passo e l'aglio rosso.",
    "n3": "Il gatto sta scorrendo nella pera.",
    "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
    "n5": "Uno quarantatré dieci mille cinquantasette venti.",
    "d1": "Sabato sera cosa farà?",
    "d2": "Porti con te quella cosa?",
}
"""Sentence code -> transcript."""


class Emovo(NamedFiles):
    """Speakers are ``f1`` to ``f3`` and ``m1`` to ``m3``."""

    labels: Mapping[str, str] = {
        "anger": "angry",
        "joy": "happy",
        "sadness": "sad",
        "surprise": "surprised",
        "fear": "fearful",
        "neutral": "neutral",
    }
    name = re.compile(r"(?P<emotion>[a-z]{3})-(?P<speaker>[fm]\d)-(?P<sentence>[a-z]\d)", re.IGNORECASE)
    layout = "emotion-speaker-sentence, such as gio-f1-b1"

    def recording(self, audio: Path, tags: re.Match[str]) -> Recording | Skipped:
        """As `NamedFiles.recording`."""
        emotion = tags["emotion"].lower()
        return Recording(
            audio=audio,
            speaker=tags["speaker"].lower(),
            label=EMOTIONS.get(emotion, emotion),
            text=SENTENCES.get(tags["sentence"].lower(), ""),
            language="it",
        )


READERS.register("emovo", Emovo())

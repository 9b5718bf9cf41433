"""CREMA-D: ``AudioWAV/AAAA_SSS_EEE_LL.wav``, English, 91 actors, 12 sentences, 16 kHz.

The parts of a name are actor, sentence, emotion, level. ``1076_MTI_SAD_XX`` is silent and skipped like every silent file.
*Disgust* is not among the package's emotions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rrpo.corpus.readers.base import READERS
from rrpo.corpus.readers.named import NamedFiles

SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
"""Sentence code -> transcript."""


class CremaD(NamedFiles):
    """Labels are the requested emotions, not the raters' votes."""

    labels: Mapping[str, str] = {"ANG": "angry", "HAP": "happy", "SAD": "sad", "FEA": "fearful", "NEU": "neutral"}
    name = re.compile(r"(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_[A-Z]{1,2}")
    layout = "ACTOR_SENTENCE_EMOTION_LEVEL, such as 1001_IEO_ANG_HI"
    sentences = SENTENCES
    language = "en"


READERS.register("crema-d", CremaD())

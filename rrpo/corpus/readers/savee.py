"""SAVEE: ``XX_cNN.wav`` or ``XX/cNN.wav``, British English, four men (DC, JE, JK, KL), 44.1 kHz.

Names do not encode the sentence, so texts are empty. *Disgust* is not among the package's emotions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rrpo.corpus.readers.base import READERS
from rrpo.corpus.readers.named import NamedFiles

EMOTIONS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
"""Emotion code -> name in the documentation of the corpus."""


class Savee(NamedFiles):
    """The speaker is given by the name, otherwise by the folder."""

    labels: Mapping[str, str] = {
        "anger": "angry",
        "happiness": "happy",
        "sadness": "sad",
        "surprise": "surprised",
        "fear": "fearful",
        "neutral": "neutral",
    }
    name = re.compile(r"(?:(?P<speaker>[A-Z]{2})_)?(?P<emotion>[a-z]{1,2})\d\d")
    layout = "SPEAKER_emotion and number, such as DC_sa03"
    emotions = EMOTIONS
    language = "en"


READERS.register("savee", Savee())

"""EmoDB, Berlin: ``wav/PPTTTEV.wav``, German, 10 actors, 10 sentences, 16 kHz.

The parts of a name are speaker, sentence, emotion, version; emotions are first letters of German words. *Boredom* (L) and
*disgust* (E) are not among the package's emotions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rrpo.corpus.readers.base import READERS
from rrpo.corpus.readers.named import NamedFiles

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
"""First letter of the German word -> emotion."""
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute Abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
"""Sentence code -> transcript."""


class EmoDb(NamedFiles):
    """The speaker is a two-digit number."""

    labels: Mapping[str, str] = {
        "anger": "angry",
        "happiness": "happy",
        "sadness": "sad",
        "fear": "fearful",
        "neutral": "neutral",
    }
    name = re.compile(r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])[a-z]?")
    layout = "speaker, sentence, emotion and version in one, such as 03a01Wa"
    emotions = EMOTIONS
    sentences = SENTENCES
    language = "de"


READERS.register("emodb", EmoDb())

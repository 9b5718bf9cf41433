"""Corpora whose paths encode speaker, emotion and sentence, each declared by a pattern of its paths and the meaning of the codes.

- CASIA: ``SPEAKER/EMOTION/201.wav``, Mandarin, 4 speakers, 16 kHz. The list of texts by number comes with the corpus; a text is
  read from ``201.txt`` beside the audio, and is unknown otherwise.
- CREMA-D: ``AudioWAV/ACTOR_SENTENCE_EMOTION_LEVEL.wav``, English, 91 actors, 16 kHz. Labels are the requested emotions, not the
  raters' votes. ``1076_MTI_SAD_XX`` is silent and skipped like every silent file.
- EmoDB, Berlin: ``wav/03a01Wa.wav`` (speaker, sentence, first letter of the German emotion, version), German, 10 actors, 16 kHz.
- EMOVO: ``f1/gio-f1-b1.wav`` (first letters of the Italian emotion, speaker, sentence), Italian, 6 actors, 48 kHz.
- RAVDESS: ``Actor_NN/MM-VC-EE-II-SS-RR-AA.wav`` (modality, vocal channel, emotion, intensity, statement, repetition, actor),
  English, 24 actors, 48 kHz. Vocal channel 01 is speech, 02 song.
- SAVEE: ``DC_a01.wav`` or ``DC/a01.wav``, British English, four men, 44.1 kHz. Names do not encode the sentence.
- ``folders``: any audio in folders named after emotions, ``[SPEAKER/]EMOTION/name.wav``.

Emotions that are not in the map of labels (boredom, calm, disgust) are not among the package's emotions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers.base import ENGLISH, READERS, Recording, Skipped, audio_files, text_beside


class NamedFiles:
    """Reader that matches a pattern with the end of each path."""

    def __init__(
        self,
        pattern: str,
        fault: str,
        *,
        codes: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        sentences: Mapping[str, str] | None = None,
        language: str = "",
    ) -> None:
        """Declare a corpus.

        Args:
            pattern: Regular expression for the last parts of a path (which starts with the name of the corpus' folder) without
                the suffix. Groups: ``emotion``, and optionally ``speaker`` (default: the folder of the file), ``sentence`` and
                ``language``.
            fault: Reason for which other files are skipped.
            codes: Emotion in a path, in lower case -> label; default: the emotion in the path is the label.
            labels: As `CorpusReader.labels`; default: the labels that are English names of the package's emotions.
            sentences: Sentence in a path -> text; default: the text is in a file beside the audio, or unknown.
            language: Language of recordings whose path does not give one.
        """
        self.pattern, self.fault, self.language = re.compile(f"(?:.*/)?{pattern}", re.DOTALL), fault, language
        self.codes, self.sentences = codes or {}, sentences or {}
        named = {label: ENGLISH[label] for label in self.codes.values() if label in ENGLISH}
        self.labels: Mapping[str, str] = named if labels is None else labels

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        for audio in audio_files(path):
            name = path.resolve().name / audio.relative_to(path).with_suffix("")
            tags = self.pattern.fullmatch(name.as_posix())
            if tags is None:
                yield Skipped(entry=str(audio), reason=self.fault)
                continue
            groups = tags.groupdict()
            yield Recording(
                audio=audio,
                speaker=groups.get("speaker") or name.parent.name,
                label=self.codes.get(tags["emotion"].lower(), tags["emotion"]),
                text=self.sentences.get(groups.get("sentence", "")) or text_beside(audio),
                language=groups.get("language") or self.language,
            )


READERS.register(
    "casia",
    NamedFiles(
        r"(?P<speaker>[^/]+)/(?P<emotion>[^/]+)/\d+",
        "its name is not a number in SPEAKER/EMOTION",
        codes={name: name for name in ("angry", "fear", "happy", "neutral", "sad", "surprise")},
        language="cmn",
    ),
)
READERS.register(
    "crema-d",
    NamedFiles(
        r"(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_[A-Z]{1,2}",
        "its name is not ACTOR_SENTENCE_EMOTION_LEVEL, such as 1001_IEO_ANG_HI",
        labels={"ANG": "angry", "HAP": "happy", "SAD": "sad", "FEA": "fearful", "NEU": "neutral"},
        sentences={
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
        },
        language="en",
    ),
)
READERS.register(
    "emodb",
    NamedFiles(
        r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])[a-z]?",
        "its name is not speaker, sentence, emotion and version in one, such as 03a01Wa",
        codes=dict(w="anger", l="boredom", e="disgust", a="fear", f="happiness", t="sadness", n="neutral"),
        sentences={
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
        },
        language="de",
    ),
)
READERS.register(
    "emovo",
    NamedFiles(
        r"(?P<emotion>[a-z]{3})-(?P<speaker>[fm]\d)-(?P<sentence>[a-z]\d)",
        "its name is not emotion-speaker-sentence, such as gio-f1-b1",
        codes=dict(neu="neutral", dis="disgust", gio="joy", pau="fear", rab="anger", sor="surprise", tri="sadness"),
        sentences={
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
        },
        language="it",
    ),
)
READERS.register(
    "ravdess",
    NamedFiles(
        r"\d\d-01-(?P<emotion>\d\d)-\d\d-(?P<sentence>\d\d)-\d\d-(?P<speaker>\d\d)",
        "a song, or its name is not seven numbers joined by hyphens, such as 03-01-05-01-02-01-12",
        codes={
            f"{number:02}": name
            for number, name in enumerate(
                ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"], 1
            )
        },
        sentences={"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."},
        language="en",
    ),
)
READERS.register(
    "savee",
    NamedFiles(
        r"(?:(?P<speaker>[A-Z]{2})_)?(?P<emotion>[a-z]{1,2})\d\d",
        "its name is not SPEAKER_emotion and number, such as DC_sa03",
        codes=dict(a="anger", d="disgust", f="fear", h="happiness", n="neutral", sa="sadness", su="surprise"),
        language="en",
    ),
)
READERS.register(
    "folders",
    NamedFiles(r"(?P<speaker>[^/]+)/(?P<emotion>[^/]+)/[^/]*", "not in a folder named after an emotion"),
)

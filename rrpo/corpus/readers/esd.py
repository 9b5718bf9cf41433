"""ESD: ``<speaker>/<Emotion>/[train|test|evaluation/]<speaker>_<NNNNNN>.wav``, 16 kHz.

Speakers 0001 to 0010 speak Mandarin, 0011 to 0020 English. ``<speaker>/<speaker>.txt`` has one line per utterance with name,
transcript and emotion, separated by tabs; the emotions of the Mandarin speakers are in Chinese. The folders train, test and
evaluation are optional and ignored: splits are by speaker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from rrpo.corpus.readers.base import ENGLISH, READERS, Recording, Skipped, audio_files, decoded

CHINESE = {"中立": "Neutral", "快乐": "Happy", "伤心": "Sad", "生气": "Angry", "惊喜": "Surprise"}
"""Chinese name of an emotion -> English name in the corpus."""
NAME = re.compile(r"(?P<speaker>\d{4})_\d{6}")
LINE = re.compile(r"^([^\t\n]+)\t(.*\S.*)\t([^\t\n]*\S)\s*?$", re.MULTILINE)
"""A line of a text file: name, transcript, emotion."""
MANDARIN = 10
"""Number of the last Mandarin speaker."""


class Esd:
    """The folder gives the label; an utterance whose transcript line names another emotion is skipped."""

    labels: Mapping[str, str] = {name: ENGLISH[name.lower()] for name in CHINESE.values()}

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        for audio in audio_files(path):
            tags = NAME.fullmatch(audio.stem)
            if tags is None:
                yield Skipped(entry=str(audio), reason="its name is not SPEAKER_NUMBER, such as 0011_000001")
                continue
            speaker = tags["speaker"]
            folder = next((folder for folder in audio.parents if folder.name == speaker), path)
            text, stated = transcripts(folder / f"{speaker}.txt").get(audio.stem, ("", ""))
            label = _emotion(audio, stated)
            if stated and stated != label:
                yield Skipped(entry=str(audio), reason="its folder and the speaker's text file name different emotions")
            else:
                language = "cmn" if int(speaker) <= MANDARIN else "en"
                yield Recording(audio=audio, speaker=speaker, label=label, text=text, language=language)


@lru_cache(maxsize=1)
def transcripts(path: Path) -> dict[str, tuple[str, str]]:
    """Return utterance -> (text, emotion) from the file of one speaker; empty if there is no file. The last file is cached,
    because the audio of a speaker is read in one go."""
    lines = (line.groups() for line in LINE.finditer(decoded(path) if path.is_file() else ""))
    fields = ([field.strip() for field in line] for line in lines)
    return {name: (text, CHINESE.get(emotion, emotion)) for name, text, emotion in fields}


def _emotion(audio: Path, stated: str) -> str:
    """Return the emotion that the nearest folder is named after; otherwise ``stated`` (in the text file) or the folder's name."""
    for folder in audio.parents[:2]:
        name = CHINESE.get(folder.name, folder.name)
        if name in Esd.labels:
            return name
    return stated or audio.parent.name


READERS.register("esd", Esd())

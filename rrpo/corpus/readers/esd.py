"""ESD: ``<speaker>/<Emotion>/[train|test|evaluation/]<speaker>_<NNNNNN>.wav``, 16 kHz.

Speakers 0001 to 0010 speak Mandarin, 0011 to 0020 English. ``<speaker>/<speaker>.txt`` has one line per utterance with name,
transcript and emotion, separated by tabs; the emotions of the Mandarin speakers are in Chinese. The folders train, test and
evaluation are optional and ignored: splits are by speaker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers.base import ENGLISH, READERS, Recording, Skipped, audio_files, decoded

CHINESE = {"中立": "Neutral", "快乐": "Happy", "伤心": "Sad", "生气": "Angry", "惊喜": "Surprise"}
"""Chinese name of an emotion -> English name in the corpus."""
NAME = re.compile(r"(?P<speaker>\d{4})_\d{6}")
MANDARIN = 10
"""Number of the last Mandarin speaker."""


class Esd:
    """The folder gives the label; an utterance whose transcript line names another emotion is skipped."""

    labels: Mapping[str, str] = {name: ENGLISH[name.lower()] for name in CHINESE.values()}

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        texts: dict[Path, dict[str, tuple[str, str]]] = {}
        for audio in audio_files(path):
            tags = NAME.fullmatch(audio.stem)
            if tags is None:
                yield Skipped(entry=str(audio), reason="its name is not SPEAKER_NUMBER, such as 0011_000001")
                continue
            folder = next((folder for folder in audio.parents if folder.name == tags["speaker"]), path)
            file = folder / f"{tags['speaker']}.txt"
            if file not in texts:
                texts[file] = transcripts(file)
            text, stated = texts[file].get(audio.stem, ("", ""))
            label = _emotion(audio, stated)
            if stated and stated != label:
                yield Skipped(entry=str(audio), reason="its folder and the speaker's text file name different emotions")
            else:
                yield Recording(
                    audio=audio,
                    speaker=tags["speaker"],
                    label=label,
                    text=text,
                    language="cmn" if int(tags["speaker"]) <= MANDARIN else "en",
                )


def transcripts(path: Path) -> dict[str, tuple[str, str]]:
    """Return utterance -> (text, emotion) from the file of one speaker; empty if there is no file."""
    if not path.is_file():
        return {}
    rows = {}
    for line in decoded(path).splitlines():
        name, _, rest = line.strip().partition("\t")
        text, _, emotion = rest.rpartition("\t")
        if text:
            emotion = emotion.strip()
            rows[name.strip()] = text.strip(), CHINESE.get(emotion, emotion)
    return rows


def _emotion(audio: Path, stated: str) -> str:
    """Return the emotion that the nearest folder is named after; otherwise ``stated`` (in the text file) or the folder's name."""
    for folder in audio.parents[:2]:
        name = CHINESE.get(folder.name, folder.name)
        if name in Esd.labels:
            return name
    return stated or audio.parent.name


READERS.register("esd", Esd())

"""CASIA: ``<speaker>/<emotion>/<NNN>.wav``, Mandarin, 4 speakers, 16 kHz.

The transcript is read from ``NNN.txt`` beside the audio and is otherwise unknown: the list of texts by number comes with the
corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers.base import READERS, Recording, Skipped, audio_files, text_beside


class Casia:
    """The folder of a file is its emotion, the parent folder its speaker."""

    labels: Mapping[str, str] = {
        "angry": "angry",
        "fear": "fearful",
        "happy": "happy",
        "neutral": "neutral",
        "sad": "sad",
        "surprise": "surprised",
    }

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        for audio in audio_files(path):
            *_, speaker, emotion = ["", path.resolve().name, *audio.relative_to(path).parts[:-1]]
            if not audio.stem.isdecimal():
                yield Skipped(entry=str(audio), reason="its name is not a number in SPEAKER/EMOTION")
            else:
                yield Recording(
                    audio=audio, speaker=speaker, label=emotion.lower(), text=text_beside(audio), language="cmn"
                )


READERS.register("casia", Casia())

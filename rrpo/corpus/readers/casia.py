"""CASIA: ``<speaker>/<emotion>/<NNN>.wav``, Mandarin, 4 speakers, 16 kHz.

What is said stands in ``NNN.txt`` beside the audio, or is unknown: the numbers' texts come with the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers.base import READERS, Recording, Skipped, audio_files, text_beside


class Casia:
    """A file's folder is its emotion, the one above its speaker."""

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

"""Audio files in folders named after the emotion: ``[SPEAKER/]EMOTION/name.wav``, what is said in ``name.txt`` beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers.base import READERS, Recording, Skipped, audio_files, text_beside


class Folders:
    """The folder of a file is its label, the one above its speaker; without one, all are by one speaker."""

    labels: Mapping[str, str] = {}

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        for audio in audio_files(path):
            *above, label = [path.resolve().name, *audio.relative_to(path).parts[:-1]]
            if not above:
                yield Skipped(entry=str(audio), reason="in no folder that is named after an emotion")
            else:
                yield Recording(audio=audio, speaker=above[-1], label=label, text=text_beside(audio))


READERS.register("folders", Folders())

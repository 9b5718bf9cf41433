"""Audio files in folders named after emotions: ``[SPEAKER/]EMOTION/name.wav``, with the transcript in ``name.txt`` beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers.base import READERS, Recording, Skipped, audio_files, text_beside


class Folders:
    """The folder of a file is its label, the parent folder its speaker; without speaker folders, all files have one speaker."""

    labels: Mapping[str, str] = {}

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        for audio in audio_files(path):
            *parents, label = [path.resolve().name, *audio.relative_to(path).parts[:-1]]
            if not parents:
                yield Skipped(entry=str(audio), reason="not in a folder named after an emotion")
            else:
                yield Recording(audio=audio, speaker=parents[-1], label=label, text=text_beside(audio))


READERS.register("folders", Folders())

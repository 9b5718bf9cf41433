"""Corpora whose file names tell everything: speaker, emotion, sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers.base import Recording, Skipped, audio_files


class NamedFiles:
    """Subclasses give the pattern of a name and what it means."""

    labels: Mapping[str, str]
    """As `rrpo.corpus.readers.base.CorpusReader.labels`."""
    name: re.Pattern[str]
    """Of a whole file name without its ending."""
    layout: str
    """The same for readers of messages: ``SPEAKER_LABEL``."""
    emotions: Mapping[str, str] = {}
    """Code of the emotion in a name -> the corpus' label, where they differ."""
    sentences: Mapping[str, str] = {}
    """Code of the sentence in a name -> what is said."""
    language: str = ""
    """Of all recordings."""

    def recording(self, audio: Path, tags: re.Match[str]) -> Recording | Skipped:
        """What the file ``audio`` is, by its name's groups ``speaker`` (or else its folder), ``emotion`` and ``sentence``."""
        found = tags.groupdict(default="")
        return Recording(
            audio=audio,
            speaker=found["speaker"] or audio.parent.name,
            label=self.emotions.get(found["emotion"], found["emotion"]),
            text=self.sentences.get(found.get("sentence", ""), ""),
            language=self.language,
        )

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        for audio in audio_files(path):
            tags = self.name.fullmatch(audio.stem)
            if tags is None:
                yield Skipped(entry=str(audio), reason=f"its name is not {self.layout}")
            else:
                yield self.recording(audio, tags)

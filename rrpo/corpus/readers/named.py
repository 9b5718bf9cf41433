"""Base class of readers for corpora that encode speaker, emotion and sentence in file names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers.base import Recording, Skipped, audio_files


class NamedFiles:
    """Reader whose subclasses define the pattern of file names and the meaning of its parts."""

    labels: Mapping[str, str]
    """As `rrpo.corpus.readers.base.CorpusReader.labels`."""
    name: re.Pattern[str]
    """Pattern of a whole file name without its suffix."""
    layout: str
    """Description of the pattern for messages: ``SPEAKER_LABEL``."""
    emotions: Mapping[str, str] = {}
    """Emotion code in a name -> label, where they differ."""
    sentences: Mapping[str, str] = {}
    """Sentence code in a name -> transcript."""
    language: str = ""
    """Language of all recordings."""

    def recording(self, audio: Path, tags: re.Match[str]) -> Recording | Skipped:
        """Return the recording ``audio`` from the groups ``speaker`` (default: its folder), ``emotion`` and ``sentence`` of its
        name."""
        groups = tags.groupdict(default="")
        return Recording(
            audio=audio,
            speaker=groups["speaker"] or audio.parent.name,
            label=self.emotions.get(groups["emotion"], groups["emotion"]),
            text=self.sentences.get(groups.get("sentence", ""), ""),
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

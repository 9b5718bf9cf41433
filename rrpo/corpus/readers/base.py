"""Interface of corpus readers: an object with a label map and a method `read`, registered in `READERS`.

A reader finds the audio, texts, speakers and labels of a corpus. `rrpo.corpus.importing` does the rest for all readers: it checks
the audio, maps the labels, counts, and writes manifests. `rrpo.testing.corpora.CorpusReaderContract` tests a reader.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from rrpo.corpus.manifest import ManifestError
from rrpo.plugins import Registry

AUDIO = frozenset((".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"))
"""Suffixes of audio files, in lower case."""
ENGLISH = {
    word: emotion
    for emotion, words in {
        "angry": ("angry", "anger"),
        "happy": ("happy", "happiness", "joy"),
        "sad": ("sad", "sadness"),
        "surprised": ("surprised", "surprise"),
        "fearful": ("fearful", "fear"),
        "neutral": ("neutral",),
    }.items()
    for word in words
}
"""English name of an emotion, in lower case -> the package's name."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One labelled utterance, as its corpus describes it."""

    audio: Path
    """Audio file."""
    speaker: str
    """Name of the speaker in the corpus; splits are by speaker."""
    label: str
    """Name of the emotion in the corpus."""
    text: str = ""
    """Transcript; empty if unknown, in which case the recording is usable for reward models and judges, not for policies."""
    language: str = ""
    """espeak-ng's language code, such as ``en``, ``de``, ``cmn``; empty if unknown."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An entry that cannot be used as an utterance."""

    entry: str
    """File or line."""
    reason: str
    """Reason, in the same words for every entry it applies to, so that entries can be counted by reason."""


class CorpusReader(Protocol):
    """Reader for one corpus layout."""

    labels: Mapping[str, str]
    """Map from labels to emotions; empty: labels are emotions. Labels that are not in the map are counted and left out."""

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """Yield the entries of the corpus at ``path`` in a fixed order. Audio is checked later.

        Raises:
            ManifestError: ``path`` does not have this layout. The message says what was expected and what to give instead.
        """


READERS: Registry[CorpusReader] = Registry("corpus reader")
"""Readers by name."""


def audio_files(path: Path) -> Iterator[Path]:
    """Return all audio files below the folder ``path``, sorted. Raises `ManifestError` if there are none.

    One folder at a time is listed, so memory does not grow with the corpus. Links to folders are not followed.
    """
    if not path.is_dir():
        problem = "a file" if path.is_file() else "no such folder"
        raise ManifestError(f"{path}: {problem}; give the folder of the corpus")
    files = _audio_below(path)
    first = next(files, None)
    if first is None:
        raise ManifestError(
            f"{path}: no audio file below it ({', '.join(sorted(AUDIO))}); give the folder of the corpus"
        )
    return chain([first], files)


def _audio_below(folder: Path) -> Iterator[Path]:
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if path.suffix.lower() in AUDIO and not name.startswith("."):
            yield path
        if path.is_dir() and not path.is_symlink():
            yield from _audio_below(path)


def text_beside(audio: Path) -> str:
    """Return the content of the file with the same name and the suffix ``.txt``; empty if there is none."""
    path = audio.with_suffix(".txt")
    return decoded(path).strip() if path.is_file() else ""


def decoded(path: Path) -> str:
    """Decode a text file as UTF-16 (if it has a byte-order mark), UTF-8, or otherwise GB18030, as in Chinese corpora."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("gb18030", errors="replace")

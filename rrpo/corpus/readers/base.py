"""What a corpus reader is: one object with a map of labels and a `read`, registered in `READERS`.

A reader knows where a corpus keeps its audio, texts, speakers and labels. `rrpo.corpus.importing` does the rest for all of them:
it checks the audio, maps the labels, counts, and writes manifests. `rrpo.testing.corpora.CorpusReaderContract` tests a reader.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rrpo.corpus.manifest import ManifestError
from rrpo.plugins import Registry

AUDIO = frozenset((".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"))
"""Endings of audio files, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One labelled utterance, as its corpus describes it."""

    audio: Path
    """Audio file."""
    speaker: str
    """The corpus' own name; splits are made by it."""
    label: str
    """The corpus' own word for the emotion."""
    text: str = ""
    """What is said; empty where the corpus does not tell: good for reward models and judges, not for policies."""
    language: str = ""
    """espeak-ng's code, such as ``en``, ``de``, ``cmn``; empty where the corpus does not tell."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An entry that is no utterance."""

    entry: str
    """File or line."""
    reason: str
    """Why; the same words for the same reason, so that they can be counted."""


class CorpusReader(Protocol):
    """Reads one layout of corpus."""

    labels: Mapping[str, str]
    """Its labels -> emotions; empty: a label is the emotion. Labels that are not in a map are counted and left out."""

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """What the corpus at ``path`` holds, in the same order each time. Whether audio can be used is checked later.

        Raises:
            ManifestError: ``path`` is no such corpus: what was expected there, and what to give instead.
        """


READERS: Registry[CorpusReader] = Registry("corpus reader")
"""Readers by name."""


def audio_files(path: Path) -> list[Path]:
    """Every audio file below the folder ``path``, sorted. Raises `ManifestError` where there is none."""
    if not path.is_dir():
        raise ManifestError(f"{path}: no such folder; give the folder of the corpus")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO and not file.name.startswith("."))
    if not found:
        raise ManifestError(
            f"{path}: no audio file below it ({', '.join(sorted(AUDIO))}); give the folder of the corpus"
        )
    return found


def text_beside(audio: Path) -> str:
    """Content of the file with the same name and the ending ``.txt``; empty without one."""
    beside = audio.with_suffix(".txt")
    return decoded(beside).strip() if beside.is_file() else ""


def decoded(path: Path) -> str:
    """A text file in UTF-16 with its mark, UTF-8, or else GB18030, as files of Chinese corpora are."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("gb18030", errors="replace")

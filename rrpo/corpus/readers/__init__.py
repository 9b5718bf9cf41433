"""Corpus readers. To add one, write a file like `folders` and import it here, or register it in your own plugin."""

from rrpo.corpus.readers import (  # noqa: F401  (they register themselves)
    casia,
    cremad,
    emodb,
    emovo,
    esd,
    folders,
    hedgewars,
    hugging_face,
    iemocap,
    ravdess,
    savee,
)
from rrpo.corpus.readers.base import READERS, CorpusReader, Recording, Skipped, audio_files, text_beside

__all__ = ["READERS", "CorpusReader", "Recording", "Skipped", "audio_files", "text_beside"]

"""Corpus readers. To add one, declare it in `named` or write a file like `esd`, or register it in your own plugin."""

from rrpo.corpus.readers import esd, hedgewars, hugging_face, iemocap, named  # noqa: F401  (they register themselves)
from rrpo.corpus.readers.base import READERS, CorpusReader, Recording, Skipped, audio_files, text_beside

__all__ = ["READERS", "CorpusReader", "Recording", "Skipped", "audio_files", "text_beside"]

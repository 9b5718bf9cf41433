"""Readers of corpora. To add one, write a file like `folders` and import it here, or register it in a plugin of your own."""

from rrpo.corpus.readers import folders  # noqa: F401  (registers itself)
from rrpo.corpus.readers.base import READERS, CorpusReader, Recording, Skipped, audio_files, text_beside

__all__ = ["READERS", "CorpusReader", "Recording", "Skipped", "audio_files", "text_beside"]

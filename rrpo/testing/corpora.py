"""Contract tests of a corpus reader.

Example:

    from rrpo.testing.corpora import CorpusReaderContract

    class TestMine(CorpusReaderContract):
        reader = MyReader()

        def corpus(self, folder):  # writes a small corpus of the layout: at least two speakers and two emotions
            write_tone(folder / "anna_W_03.wav")
            ...
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rrpo.corpus.importing import import_corpus
from rrpo.corpus.manifest import ManifestError, read_manifest
from rrpo.corpus.readers import CorpusReader, Recording, Skipped


def write_tone(path: Path, pitch: float = 200.0, seconds: float = 0.3, rate: int = 16000) -> None:
    """Write a tone of ``pitch`` Hz to an audio file; another pitch gives other bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate), rate)


class CorpusReaderContract:
    """Subclass it as ``Test...``, set the ``reader`` and implement `corpus`, which writes a small corpus of its layout."""

    reader: CorpusReader
    """The reader under test."""
    language = "en"
    """Language to use if the corpus does not specify one."""

    def corpus(self, folder: Path) -> None:
        """Write a corpus into the empty ``folder`` with `write_tone`: at least two speakers and two emotions."""
        raise NotImplementedError

    @pytest.fixture
    def written(self, tmp_path: Path) -> Path:
        """Return a folder with the corpus."""
        folder = tmp_path / "corpus"
        folder.mkdir()
        self.corpus(folder)
        return folder

    def test_recordings_are_complete_and_in_a_fixed_order(self, written: Path) -> None:
        entries = list(self.reader.read(written))
        assert entries == list(self.reader.read(written))
        recordings = [entry for entry in entries if isinstance(entry, Recording)]
        assert len({entry.audio for entry in recordings}) == len(recordings) > 0
        assert all(entry.audio.is_file() and entry.speaker and entry.label for entry in recordings)
        assert all(entry.entry and entry.reason for entry in entries if isinstance(entry, Skipped))

    def test_it_distinguishes_speakers_and_labels(self, written: Path) -> None:
        recordings = [entry for entry in self.reader.read(written) if isinstance(entry, Recording)]
        assert len({entry.speaker for entry in recordings}) >= 2
        assert len({entry.label for entry in recordings}) >= 2
        if self.reader.labels:
            assert {entry.label for entry in recordings} & self.reader.labels.keys()

    def test_manifests_of_different_splits_share_no_speaker(self, written: Path, tmp_path: Path) -> None:
        out = tmp_path / "mine.jsonl"
        split = ["train=.5", "test=.5"]
        labels = self.reader.labels
        summary = import_corpus(self.reader, written, out, labels=labels, language=self.language, split=split)
        manifests = {path: read_manifest(path, None) for path in summary.written}
        assert {path: len(utterances) for path, utterances in manifests.items()} == summary.written
        train, test = ({u.speaker for u in utterances} for utterances in manifests.values())
        assert train
        assert test
        assert not train & test
        if labels:
            assert {u.emotion for utterances in manifests.values() for u in utterances} <= set(labels.values())

    def test_a_broken_file_is_skipped_with_a_reason(self, written: Path, tmp_path: Path) -> None:
        recordings = (entry for entry in self.reader.read(written) if isinstance(entry, Recording))
        broken = next(entry for entry in recordings if entry.label in (self.reader.labels or [entry.label])).audio
        broken.write_bytes(b"no audio")
        out = tmp_path / "mine.jsonl"
        summary = import_corpus(self.reader, written, out, labels=self.reader.labels, language=self.language)
        assert [entry.entry for entry in summary.skipped if entry.reason == "not readable as audio"] == [str(broken)]
        assert str(broken) not in [json.loads(line)["audio"] for line in out.read_text().splitlines()]

    def test_a_folder_without_a_corpus_is_rejected(self, tmp_path: Path) -> None:
        for folder in (tmp_path / "none", tmp_path / "empty"):
            (tmp_path / "empty").mkdir(exist_ok=True)
            with pytest.raises(ManifestError, match=str(folder)):
                list(self.reader.read(folder))

"""A user's own corpus, checked as a whole before anything is computed: every line, every audio file, and their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from rrpo.audio import AudioError, load_wave
from rrpo.corpus.config import AudioConfig, ManifestConfig
from rrpo.corpus.manifest import ManifestError, read_manifest


def check_manifest(path: Path, emotions: Sequence[str], audio: AudioConfig) -> ManifestConfig:
    """The manifest as a config, keyed by its content: moving the files changes nothing, editing one changes every key.

    Raises `ManifestError` at the first line that cannot be used, also when its audio is missing, unreadable, empty, silent,
    not finite or sampled too low.
    """
    digest = hashlib.sha256()
    for utterance in read_manifest(path, emotions):
        digest.update(repr((utterance.id, utterance.text, utterance.phones, utterance.speaker)).encode())
        digest.update(repr((utterance.language, utterance.emotion, utterance.votes, utterance.spec)).encode())
        if utterance.audio is not None:
            try:
                load_wave(utterance.audio, audio.sample_rate)
            except AudioError as error:
                raise ManifestError(f"{path}, utterance {utterance.id!r}: {error}") from error
            digest.update(Path(utterance.audio).read_bytes())
    return ManifestConfig(digest=digest.hexdigest()[:32], path=str(path.resolve()))

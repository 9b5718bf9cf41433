"""Extract speech tokens from audio with CosyVoice2's tokenizer, ``speech_tokenizer_v2.onnx``, which the user provides.

Its interface, as used by upstream's extraction tool: input 0 is Whisper's log-mel spectrogram ``[1, 128, T]`` at 16 kHz and 100
frames per second, input 1 its number of frames ``[1]`` (int32), output 0 the token ids at 25 per second. Audio longer than 30 s
gets no tokens. The package onnxruntime is optional (extra ``judges``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import WhisperFeatureExtractor

from rrpo.corpus.features import wave_of
from rrpo.corpus.manifest import NO_TEXT, ManifestError, Utterance
from rrpo.cosyvoice.layout import LONGEST, reading
from rrpo.errors import InputError

SAMPLE_RATE, MELS = 16000, 128
"""Settings of Whisper's spectrogram."""
FAILURES = 10
"""Number of failures in a row that end an extraction."""


def whisper_log_mel(audio: Tensor) -> np.ndarray:
    """Return ``[1, 128, S // 160]`` of ``audio [S]`` at 16 kHz, float32: Whisper's log-mel spectrogram."""
    extractor = WhisperFeatureExtractor(feature_size=MELS)
    features = extractor(
        audio.numpy(), sampling_rate=SAMPLE_RATE, padding="longest", truncation=False, return_tensors="np"
    )
    return np.asarray(features["input_features"])


class SpeechTokenizer:
    """Session of ``speech_tokenizer_v2.onnx``."""

    def __init__(self, path: Path) -> None:
        """Raise InputError if onnxruntime is not installed, or the file is missing or has other inputs."""
        fix = "pip install onnxruntime, and give speech_tokenizer_v2.onnx of CosyVoice2-0.5B; if it is that file, copy it again"
        with reading(path, "CosyVoice2's speech tokenizer", fix):
            import onnxruntime

            providers = onnxruntime.get_available_providers()
            self._session: Any = onnxruntime.InferenceSession(str(path), providers=providers)
            inputs = self._session.get_inputs()
            if len(inputs) != 2:
                raise ValueError(f"{len(inputs)} inputs instead of a spectrogram and its length")
        self._names = [node.name for node in inputs]

    def __call__(self, audio: Tensor) -> list[int]:
        """Return the token ids of ``audio [S]`` at 16 kHz; empty above 30 s, as upstream."""
        if len(audio) > LONGEST * SAMPLE_RATE:
            return []
        mel = whisper_log_mel(audio)
        feeds = {self._names[0]: mel, self._names[1]: np.array([mel.shape[2]], dtype=np.int32)}
        return [int(token) for token in self._session.run(None, feeds)[0].ravel()]


def extract(
    tokenizer: SpeechTokenizer,
    utterances: Iterable[Utterance],
    tell: Callable[[str], None] = lambda line: None,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Utterance, list[int]]]:
    """Yield recordings and their token ids, with channels averaged. Those that cannot be used are skipped.

    Args:
        tokenizer: The tokenizer.
        utterances: The recordings.
        tell: Called with a line about each recording that is skipped or has no tokens.
        report: Called with the number of recordings so far, as a line.

    Raises:
        InputError: The tokenizer fails on `FAILURES` recordings in a row.
    """
    failures = 0
    for number, utterance in enumerate(utterances, 1):
        report(f"{number} recordings")
        if utterance.text == NO_TEXT:
            tell(f"left out: {utterance.audio}: no transcript")
            continue
        try:
            wave = wave_of(utterance, SAMPLE_RATE)
        except ManifestError as error:
            tell(f"left out: {error}")
            continue
        try:
            tokens, failures = tokenizer(wave), 0
        except Exception as error:  # onnxruntime's errors have no common base class
            failures += 1
            if failures == FAILURES:
                fix = "see to the error, for example free memory, and give the same command to continue"
                got = f"{failures} recordings in a row, the last: {utterance.audio}: {error}"
                raise InputError("the tokenizer fails", got=got, fix=fix) from error
            tell(f"left out: {utterance.audio}: the tokenizer fails: {error}")
            continue
        if not tokens:
            tell(f"{utterance.audio}: no tokens, longer than {LONGEST:.0f} s")
        yield utterance, tokens

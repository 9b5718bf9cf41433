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
from rrpo.corpus.manifest import ManifestError, Utterance
from rrpo.cosyvoice.layout import reading

SAMPLE_RATE, MELS = 16000, 128
"""Settings of Whisper's spectrogram."""
LONGEST = 30.0
"""Maximum duration in seconds."""


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
    """Yield recordings and their token ids, with channels averaged. Files that cannot be used are told and skipped; ``report`` is
    called with the number of those read.

    Raises:
        InputError: The tokenizer fails on an utterance, for example for lack of memory.
    """
    for number, utterance in enumerate(utterances, 1):
        report(f"{number} utterances read")
        try:
            wave = wave_of(utterance, SAMPLE_RATE)
        except ManifestError as error:
            tell(f"left out: {error}")
            continue
        fix = "give the command again, which continues here; or leave the utterance out of the manifest"
        with reading(Path(str(utterance.audio)), "input of the tokenizer", fix):
            tokens = tokenizer(wave)
        if not tokens:
            tell(f"{utterance.audio}: no tokens, longer than {LONGEST:.0f} s")
        yield utterance, tokens

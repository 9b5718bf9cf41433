"""Convert text to 16-bit speech and to phones with espeak-ng, through ctypes on the library in the wheel ``espeakng-loader``.

espeak-ng keeps state between utterances that no call resets, and seeds its noise from the clock. The library is therefore
unloaded, reloaded and seeded for each utterance, so that a result depends only on its arguments, in any process. Only one
instance can exist at a time: use processes, not threads.
"""

from __future__ import annotations

import _ctypes
import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import espeakng_loader
import numpy as np

SAMPLE_RATE = 22050
"""Hz, espeak-ng's native rate."""
VOICES = {"cmn": "sit/cmn", "en": "en-us", "de": "gmw/de"}
"""espeak-ng voice of each language of the world; other language codes are used as voice names. A path (lower case only) is opened
directly; for a name, espeak-ng first lists all its voices, which costs 4 of 20 ms per utterance."""
RATE_LIMITS = (80, 450)
"""Range of speaking rates that espeak-ng accepts, words per minute."""

_SYNCHRONOUS, _UTF8, _IPA = 2, 1, 0x02  # the asynchronous mode starts a thread, which deadlocks on unloading
_DONT_EXIT = 0x8000
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_SEPARATOR = "_"
_MARKS = re.compile(r"[ˈˌ˥˦˧˨˩0-9\u0361\u200d]|(?<=i)\.")
"""Marks that are not phones: stress, tones, and the dot of the apical vowel, which follows from its consonant."""
_TONE_THREE = "ɜ"
"""How espeak-ng's IPA writes the digit 3 of the rising tone 35; not a vowel of Mandarin."""


class EspeakError(RuntimeError):
    """espeak-ng rejected a voice, a parameter or a text."""


@contextmanager
def _library(language: str, variant: str = "") -> Iterator[ctypes.CDLL]:
    """Load espeak-ng anew, set its voice, and unload it on exit."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        if (
            library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), _DONT_EXIT)
            != SAMPLE_RATE
        ):
            raise EspeakError("espeak-ng did not start at 22050 Hz; reinstall espeakng-loader")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        voice = VOICES.get(language, language) + (f"+{variant}" if variant else "")
        if library.espeak_SetVoiceByName(voice.encode()):
            raise EspeakError(
                f"espeak-ng has no voice {voice!r}; use one of {sorted(VOICES)} or an espeak-ng language code"
            )
        yield library
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)


def synthesize(
    text: str,
    language: str,
    variant: str = "",
    *,
    rate: int = 175,
    pitch: int = 50,
    pitch_range: int = 50,
    volume: int = 100,
) -> np.ndarray:
    """Return speech of ``text`` as int16 ``[S]`` at `SAMPLE_RATE`.

    ``rate`` is in words per minute (80..450), ``pitch`` 0..100 (50 per octave), ``pitch_range`` 0..100 (50 = the voice's own),
    ``volume`` 0..200. Raises `EspeakError` if the voice is unknown or the text yields no speech.
    """
    chunks: list[np.ndarray] = []

    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _CALLBACK(collect)
    encoded = text.encode()
    with _library(language, variant) as library:
        library.espeak_SetSynthCallback(callback)
        for name, value in {"rate": rate, "volume": volume, "pitch": pitch, "range": pitch_range}.items():
            if library.espeak_SetParameter(_PARAMETERS[name], ctypes.c_int(int(value)), 0):
                raise EspeakError(f"espeak-ng rejects {name} = {value}")
        size = ctypes.c_size_t(len(encoded) + 1)
        if library.espeak_Synth(encoded, size, ctypes.c_uint(0), 1, ctypes.c_uint(0), ctypes.c_uint(_UTF8), None, None):
            raise EspeakError(f"espeak-ng cannot speak {text!r} in {language!r}")
        library.espeak_Synchronize()
    if not chunks:
        raise EspeakError(f"espeak-ng produces no speech for {text!r} in {language!r}")
    return np.concatenate(chunks)


def raw_phonemes(texts: Sequence[str], language: str) -> list[str]:
    """Return espeak-ng's IPA of each text, with stress and tone marks; ``_`` separates phonemes, a space separates words."""
    phonemes = []
    with _library(language) as library:
        for text in texts:
            pointer = ctypes.c_char_p(text.encode())
            clauses = []
            while pointer.value:
                clause = library.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, _IPA | (ord(_SEPARATOR) << 8))
                clauses.append((clause or b"").decode())
            phonemes.append(" ".join(clauses))
    return phonemes


def phones(texts: Sequence[str], language: str) -> list[tuple[str, ...]]:
    """Return the segmental phones of each text: IPA symbols without stress, tone or word marks. Loads espeak-ng once for all
    texts.

    Raises `EspeakError` if espeak-ng finds no phones or switches the language (it reads foreign script by the rules of another
    language).
    """
    sequences = []
    for text, raw in zip(texts, raw_phonemes(texts, language), strict=True):
        if "(" in raw:
            raise EspeakError(f"espeak-ng reads part of {text!r} in another language than {language!r}: {raw}")
        if language.startswith("cmn"):
            raw = raw.replace(_TONE_THREE, "")
        symbols = (_MARKS.sub("", symbol) for symbol in re.split(r"[_\s]+", raw))
        sequences.append(tuple(symbol for symbol in symbols if symbol))
        if not sequences[-1]:
            raise EspeakError(f"espeak-ng finds no phones in {text!r} ({language!r})")
    return sequences

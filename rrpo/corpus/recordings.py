"""What an audio file of a corpus must be before anything learns from it."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import soundfile

from rrpo.audio import AudioError, load_wave

LONGEST = 60.0
"""Seconds; what is longer is no utterance, and is not decoded."""
QUIETEST = -65.0
"""dBFS, root mean square; what lies below is silence, with the noise of a converter perhaps."""
MISSING = 0.01
"""Share of the samples that a header promises and a file may lack: the headers of MP3 files are not exact."""
UNKNOWN_SIZE = 2**31 - 2**16
"""Bytes of sound; headers written into a pipe say this or more, and mean until the end."""
_SIZES = re.compile(r"^data *: *(?P<promised>\d+) \(should be (?P<there>\d+)\)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One file that can be used."""

    seconds: float
    power: float
    """Mean square of the samples; full scale is 1."""
    digest: str
    """SHA-256 of the file, 32 hexadecimal digits of it."""


def examine(path: Path, sample_rate: int, longest: float = LONGEST) -> Sound:
    """Decode a file as models will hear it, mono at ``sample_rate`` Hz.

    Raises:
        AudioError: It is missing, unreadable, empty, truncated, too long, silent, not finite, sampled too low, or its name is not
            UTF-8. Each reason comes first in the message, in the same words for every file.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise AudioError(f"{path}: its name is not UTF-8; rename it") from error
    try:
        info = soundfile.info(path, verbose=True)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path}: not readable as audio ({error}); convert it to WAV or FLAC") from error
    if info.duration > longest:
        raise AudioError(f"{path}: longer than {longest:g} s ({info.duration:.0f} s); cut it into utterances")
    sizes = _SIZES.search(info.extra_info)
    if sizes and int(sizes["there"]) < int(sizes["promised"]) < UNKNOWN_SIZE:
        raise AudioError(f"{path}: truncated ({sizes['there']} of {sizes['promised']} bytes); copy it again")
    wave = load_wave(path, sample_rate)
    promised = info.frames * sample_rate / info.samplerate
    if len(wave) < (1 - MISSING) * promised:
        raise AudioError(f"{path}: truncated ({len(wave)} of {promised:.0f} samples); copy it again")
    power = float(wave.double().square().mean())
    if 10 * math.log10(max(power, 1e-30)) < QUIETEST:
        raise AudioError(f"{path}: silent (below {QUIETEST:g} dBFS); record it again or remove it")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    return Sound(seconds=len(wave) / sample_rate, power=power, digest=digest)

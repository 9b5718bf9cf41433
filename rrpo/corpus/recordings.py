"""Check whether an audio file of a corpus can be used."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import soundfile

from rrpo.audio import AudioError, load_wave

LONGEST = 60.0
"""Maximum duration of an utterance in seconds; longer files are not decoded."""
QUIETEST = -65.0
"""dBFS, root mean square; anything below counts as silence, possibly with converter noise."""
MISSING = 0.01
"""Fraction of the samples given in the header that a file may lack: MP3 headers are not exact."""
UNKNOWN_SIZE = 2**31 - 2**16
"""Bytes of audio; a header written to a pipe gives this number or more, meaning "until the end of the file"."""
_SIZES = re.compile(r"^data *: *(?P<declared>\d+) \(should be (?P<actual>\d+)\)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Properties of a usable file."""

    seconds: float
    power: float
    """Mean square of the samples; full scale is 1."""
    digest: str
    """First 32 hexadecimal digits of the SHA-256 of the file."""


def examine(path: Path, sample_rate: int, longest: float = LONGEST) -> Sound:
    """Decode a file as it is for the models, mono at ``sample_rate`` Hz, and check it.

    Raises:
        AudioError: The file is missing, unreadable, empty, truncated, too long, silent, not finite or sampled at too low a
            rate, or its name is not UTF-8. The message starts with the reason, in the same words for every file.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise AudioError(f"{path}: its name is not UTF-8; rename it") from error
    if not path.is_file():
        raise AudioError(f"{path}: not a regular file; copy it again")
    try:
        info = soundfile.info(path, verbose=True)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path}: not readable as audio ({error}); convert it to WAV or FLAC") from error
    if info.duration > longest:
        raise AudioError(f"{path}: longer than {longest:g} s ({info.duration:.0f} s); cut it into utterances")
    sizes = _SIZES.search(info.extra_info)
    if sizes and int(sizes["actual"]) < int(sizes["declared"]) < UNKNOWN_SIZE:
        raise AudioError(f"{path}: truncated ({sizes['actual']} of {sizes['declared']} bytes); copy it again")
    wave = load_wave(path, sample_rate)
    expected = info.frames * sample_rate / info.samplerate
    if len(wave) < (1 - MISSING) * expected:
        raise AudioError(f"{path}: truncated ({len(wave)} of {expected:.0f} samples); copy it again")
    power = float(wave.double().square().mean())
    if 10 * math.log10(max(power, 1e-30)) < QUIETEST:
        raise AudioError(f"{path}: silent (below {QUIETEST:g} dBFS); record it again or remove it")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    return Sound(seconds=len(wave) / sample_rate, power=power, digest=digest)

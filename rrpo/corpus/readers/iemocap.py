"""IEMOCAP: ``SessionS/sentences/wav/<dialog>/<utterance>.wav``, English, ten actors, 16 kHz.

Labels are in ``SessionS/dialog/EmoEvaluation/<dialog>.txt``, texts in ``SessionS/dialog/transcriptions/<dialog>.txt``. The
speaker is the session plus the F or M in the last part of the utterance's name; the F or M after the session number is the actor
who wore the markers. As is usual, *exc* is merged into *hap*. *fru*, *dis*, *oth* and *xxx* (no agreement) are not among the
package's emotions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.manifest import ManifestError
from rrpo.corpus.readers.base import READERS, Recording, Skipped, audio_files, decoded

EVALUATION = re.compile(r"^\[[\d. ]+-[\d. ]+\]\t(?P<name>\S+)\t(?P<label>\w+)\t", re.MULTILINE)
"""A line of an evaluation: ``[6.29 - 8.24]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5, 2.5, 2.5]``."""
TRANSCRIPT = re.compile(r"^(?P<name>Ses\S+) \[[^\]]*\]:(?P<text>.*)$", re.MULTILINE)
"""A line of a transcript: ``Ses01F_impro01_F000 [6.29-8.24]: Excuse me.``"""
NAME = re.compile(r"(?P<session>Ses\d\d)[FM]_.+_(?P<actor>[FM])[^_]*")
SOUND = re.compile(r"\[[A-Z ]+\]")
"""A tag in a transcript, such as ``[LAUGHTER]``."""


class Iemocap:
    """Reads the mono utterances in ``sentences``, not the recordings of whole dialogs."""

    labels: Mapping[str, str] = {
        "ang": "angry",
        "hap": "happy",
        "exc": "happy",
        "sad": "sad",
        "sur": "surprised",
        "fea": "fearful",
        "neu": "neutral",
    }

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        audio_files(path)
        sessions = sorted(folder for folder in path.glob("Session*") if (folder / "dialog" / "EmoEvaluation").is_dir())
        if not sessions:
            raise ManifestError(
                f"{path}: no SessionN/dialog/EmoEvaluation below it, which has IEMOCAP's labels; give the folder that contains "
                "the sessions"
            )
        for session in sessions:
            wavs = session / "sentences" / "wav"
            if not wavs.is_dir():
                yield Skipped(entry=str(wavs), reason="the session has no such folder")
                continue
            for dialog in sorted(folder for folder in wavs.iterdir() if folder.is_dir()):
                labels = _lines(session / "dialog" / "EmoEvaluation" / f"{dialog.name}.txt", EVALUATION, "label")
                texts = _lines(session / "dialog" / "transcriptions" / f"{dialog.name}.txt", TRANSCRIPT, "text")
                for audio in audio_files(dialog) if any(dialog.iterdir()) else ():
                    yield _recording(audio, labels, texts)


def _recording(audio: Path, labels: Mapping[str, str], texts: Mapping[str, str]) -> Recording | Skipped:
    tags = NAME.fullmatch(audio.stem)
    if tags is None:
        return Skipped(entry=str(audio), reason="its name is not SESSION_DIALOG_SPEAKER, such as Ses01F_impro01_F000")
    if audio.stem not in labels:
        return Skipped(entry=str(audio), reason="no label in EmoEvaluation")
    return Recording(
        audio=audio,
        speaker=tags["session"] + tags["actor"],
        label=labels[audio.stem],
        text=" ".join(SOUND.sub(" ", texts.get(audio.stem, "")).split()),
        language="en",
    )


def _lines(path: Path, pattern: re.Pattern[str], group: str) -> dict[str, str]:
    """Return utterance -> one group of each matching line; empty if there is no file."""
    matches = pattern.finditer(decoded(path)) if path.is_file() else ()
    return {match["name"]: match[group] for match in matches}


READERS.register("iemocap", Iemocap())

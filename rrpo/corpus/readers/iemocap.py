"""IEMOCAP: ``SessionS/sentences/wav/<dialog>/<utterance>.wav``, English, ten actors, 16 kHz.

Labels are in ``SessionS/dialog/EmoEvaluation/<dialog>.txt``, texts in ``SessionS/dialog/transcriptions/<dialog>.txt``. The
speaker is the session plus the F or M in the last part of the utterance's name; the F or M after the session number is the actor
who wore the markers. As is usual, *exc* is merged into *hap*. *fru*, *dis*, *oth* and *xxx* (no agreement) are not among the
package's emotions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
        labels = _lines(path.glob("Session*/dialog/EmoEvaluation/*.txt"), EVALUATION, "label")
        texts = _lines(path.glob("Session*/dialog/transcriptions/*.txt"), TRANSCRIPT, "text")
        files = audio_files(path)
        if not labels:
            raise ManifestError(
                f"{path}: no SessionN/dialog/EmoEvaluation below it, which has IEMOCAP's labels; give the folder that contains "
                "the sessions"
            )
        without_audio = dict(labels)
        for audio in files:
            tags = NAME.fullmatch(audio.stem)
            if "sentences" not in audio.relative_to(path).parts:
                continue  # a whole dialog
            if tags is None:
                yield Skipped(
                    entry=str(audio), reason="its name is not SESSION_DIALOG_SPEAKER, such as Ses01F_impro01_F000"
                )
            elif without_audio.pop(audio.stem, None) is None:
                yield Skipped(entry=str(audio), reason="no label in EmoEvaluation")
            else:
                text = " ".join(SOUND.sub(" ", texts.get(audio.stem, "")).split())
                speaker = tags["session"] + tags["actor"]
                yield Recording(audio=audio, speaker=speaker, label=labels[audio.stem], text=text, language="en")
        yield from (Skipped(entry=name, reason="labelled, but there is no audio of it") for name in without_audio)


def _lines(files: Iterable[Path], pattern: re.Pattern[str], group: str) -> dict[str, str]:
    """Return utterance -> one group of each matching line of the files."""
    matches = (match for file in sorted(files) for match in pattern.finditer(decoded(file)))
    return {match["name"]: match[group] for match in matches}


READERS.register("iemocap", Iemocap())

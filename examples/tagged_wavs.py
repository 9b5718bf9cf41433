"""A corpus reader as a plugin: WAV files named ``SPEAKER_LABEL_SENTENCE.wav``, such as ``anna_W_03.wav``, and one file of texts.

    python -m rrpo.corpus import tagged /data/tagged --plugin examples/tagged_wavs.py --out mine.jsonl \
        --split train=.8 --split valid=.1 --split test=.1
    python -m ablations.run --grid rm --train mine --test mine

``texts.tsv`` holds one sentence per line, after its number: ``03<tab>Das Tuch liegt auf dem Tisch.``
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.readers import READERS, Recording, Skipped, audio_files

NAME = re.compile(r"(?P<speaker>[a-z]+)_(?P<label>[A-Z])_(?P<sentence>\d+)")


class TaggedWavs:
    """Read emotions from the initials of their German names."""

    labels: Mapping[str, str] = {"W": "angry", "F": "happy", "T": "sad", "A": "fearful", "N": "neutral"}

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """Yield a `Recording` for each file with a valid name and a known sentence, and `Skipped` for the others."""
        files = audio_files(path)
        texts = dict(re.findall(r"^(\d+)\t(.+)$", (path / "texts.tsv").read_text(encoding="utf-8"), re.MULTILINE))
        for file in files:
            tags = NAME.fullmatch(file.stem)
            if tags is None:
                yield Skipped(entry=str(file), reason="its name is not SPEAKER_LABEL_SENTENCE")
            elif tags["sentence"] not in texts:
                yield Skipped(entry=str(file), reason="no such sentence in texts.tsv")
            else:
                yield Recording(
                    audio=file,
                    speaker=tags["speaker"],
                    label=tags["label"],
                    text=texts[tags["sentence"]],
                    language="de",
                )


READERS.register("tagged", TaggedWavs())

"""Hugging Face audio data sets on disk: the output of ``save_to_disk``, or a downloaded repository with Parquet files.

Both are read by pyarrow, without the package ``datasets``. Columns are found by type and by common names. Audio inside the
tables is written once to a folder ``<data set>.audio`` beside the data set, because manifests refer to files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rrpo.corpus.manifest import ManifestError
from rrpo.corpus.readers.base import READERS, Recording, Skipped

LABELS = ("emotion", "label", "labels", "major_emotion", "emotion_label", "style", "class")
SPEAKERS = ("speaker", "speaker_id", "speakers", "actor", "actor_id", "spk_id")
TEXTS = ("text", "transcription", "transcript", "sentence")
LANGUAGES = ("language", "lang", "locale")
ROWS = 64
"""Rows read at a time."""
MARKS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"FORM": ".aiff"}
"""First bytes of an audio file -> its suffix."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a table that recordings are made from."""

    audio: str
    label: str
    names: Sequence[str]
    """Names of the classes, if the label is a number."""
    speaker: str | None
    text: str | None
    language: str | None


class HuggingFace:
    """Labels are class names; without a speaker column, all recordings have one speaker."""

    labels: Mapping[str, str] = {
        "angry": "angry",
        "anger": "angry",
        "happy": "happy",
        "happiness": "happy",
        "joy": "happy",
        "sad": "sad",
        "sadness": "sad",
        "surprised": "surprised",
        "surprise": "surprised",
        "fearful": "fearful",
        "fear": "fearful",
        "neutral": "neutral",
    }

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        files = [
            file
            for ending in ("arrow", "parquet")
            for file in sorted(path.rglob(f"*.{ending}"))
            if not file.name.startswith(("cache-", "."))
        ]
        if not files:
            raise ManifestError(
                f"{path}: no *.arrow or *.parquet below it; give a folder written by datasets' save_to_disk, or a downloaded "
                "data set repository with Parquet files"
            )
        exported = path.resolve().with_name(f"{path.resolve().name}.audio")
        for file in files:
            schema, batches = _open_table(file)
            columns = _find_columns(file, schema)
            row = 0
            try:
                for batch in batches:
                    for cells in batch.to_pylist():
                        yield _to_recording(cells, columns, f"{file}, row {row}", path, exported)
                        row += 1
            except (pa.ArrowInvalid, OSError) as error:
                yield Skipped(entry=f"{file}, from row {row} on ({error})", reason="the rest of a table cannot be read")


def _open_table(file: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the schema of a table and an iterator over batches of rows. Raises `ManifestError` if the file is not a table."""
    try:
        if file.suffix == ".parquet":
            table = pq.ParquetFile(file)
            return table.schema_arrow, table.iter_batches(ROWS)
        stream = pa.ipc.open_stream(pa.memory_map(str(file)))
        return stream.schema, (batch.slice(i, ROWS) for batch in stream for i in range(0, len(batch), ROWS))
    except pa.ArrowInvalid as error:
        raise ManifestError(
            f"{file}: not readable as a table ({error}); download or save the data set again"
        ) from error


def _find_columns(file: Path, schema: pa.Schema) -> Columns:
    """Find the columns. Raises `ManifestError` if there is no audio or no label."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = metadata.get("info", {}).get("features", {})

    def first(names: Sequence[str]) -> str | None:
        return next((name for name in names if name in schema.names), None)

    audio = next((name for name, feature in features.items() if feature.get("_type") == "Audio"), first(("audio",)))
    label = first(LABELS)
    if audio is None or label is None:
        missing = "audio" if audio is None else f"emotions ({', '.join(LABELS)})"
        raise ManifestError(
            f"{file}: no column of {missing}; it has {', '.join(schema.names)}: rename the column with datasets' rename_column"
        )
    return Columns(
        audio=audio,
        label=label,
        names=features.get(label, {}).get("names") or (),
        speaker=first(SPEAKERS),
        text=first(TEXTS),
        language=first(LANGUAGES),
    )


def _to_recording(
    cells: Mapping[str, Any], columns: Columns, entry: str, path: Path, exported: Path
) -> Recording | Skipped:
    sound, label = cells[columns.audio], cells[columns.label]
    if isinstance(label, int) and 0 <= label < len(columns.names):
        label = columns.names[label]
    if label is None or label == "":
        return Skipped(entry=entry, reason="no label")
    audio = _audio_of(sound, path, exported)
    if audio is None:
        return Skipped(entry=entry, reason="no sound in the row, and no such file")

    def cell(name: str | None) -> str:
        return "" if name is None or cells[name] is None else str(cells[name]).strip()

    return Recording(
        audio=audio,
        speaker=cell(columns.speaker) or path.resolve().name,
        label=str(label),
        text=cell(columns.text),
        language=cell(columns.language),
    )


def _audio_of(sound: Any, path: Path, exported: Path) -> Path | None:
    """Return the audio as a file: written under the hash of its bytes, or found at its path; None if neither exists."""
    if isinstance(sound, str):
        sound = {"path": sound}
    if not isinstance(sound, dict):
        return None
    if content := sound.get("bytes"):
        ending = next((ending for mark, ending in MARKS.items() if content.startswith(mark)), None)
        ending = ending or Path(sound.get("path") or "").suffix.lower() or ".wav"
        file = exported / f"{hashlib.sha256(content).hexdigest()[:32]}{ending}"
        if not file.is_file():
            exported.mkdir(exist_ok=True)
            partial = file.with_name(f".{file.name}.{os.getpid()}")
            partial.write_bytes(content)
            os.replace(partial, file)
        return file
    if sound.get("path") and (file := path / sound["path"]).is_file():
        return file
    return None


READERS.register("hugging-face", HuggingFace())

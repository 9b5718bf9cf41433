"""Hugging Face audio data sets on disk: the output of ``save_to_disk``, or a downloaded repository with Parquet files.

Both are read by pyarrow, without the package ``datasets``. Columns are found by type and by common names. Audio inside the
tables is written once to a folder ``<data set>.audio`` beside the data set, because manifests refer to files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rrpo.corpus.manifest import ManifestError
from rrpo.corpus.readers.base import ENGLISH, READERS, Recording, Skipped

COLUMNS = {
    "audio": ("audio",),
    "label": ("emotion", "label", "labels", "major_emotion", "emotion_label", "style", "class"),
    "speaker": ("speaker", "speaker_id", "speakers", "actor", "actor_id", "spk_id"),
    "text": ("text", "transcription", "transcript", "sentence"),
    "language": ("language", "lang", "locale"),
}
"""Names of the columns that recordings are made from; the first that exists is used."""
ROWS = 64
"""Rows read at a time."""
MARKS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"FORM": ".aiff"}
"""First bytes of an audio file -> its suffix."""


class HuggingFace:
    """Labels are class names; without a speaker column, all recordings have one speaker."""

    labels: Mapping[str, str] = ENGLISH

    def read(self, path: Path) -> Iterator[Recording | Skipped]:
        """As `rrpo.corpus.readers.base.CorpusReader.read`."""
        files = [*sorted(path.rglob("*.arrow")), *sorted(path.rglob("*.parquet"))]
        files = [file for file in files if not file.name.startswith(("cache-", "."))]
        if not files:
            raise ManifestError(
                f"{path}: no *.arrow or *.parquet below it; give a folder written by datasets' save_to_disk, or a downloaded "
                "data set repository with Parquet files"
            )
        exported = path.resolve().with_name(f"{path.resolve().name}.audio")
        for file in files:
            schema, batches = _open_table(file)
            columns, names = _find_columns(file, schema)
            for row, cells in enumerate(_rows(batches)):
                if isinstance(cells, Exception):
                    entry = f"{file}, from row {row} on ({cells})"
                    yield Skipped(entry=entry, reason="the rest of a table cannot be read")
                    break
                values = {role: cells[column] for role, column in columns.items()}
                yield _to_recording(values, names, f"{file}, row {row}", path, exported)


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


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any] | Exception]:
    """Yield the rows of a table, and last the error with which reading it ended, if any."""
    try:
        for batch in batches:
            yield from batch.to_pylist()
    except (pa.ArrowException, ValueError, OSError) as error:  # ValueError: text that is not UTF-8
        yield error


def _find_columns(file: Path, schema: pa.Schema) -> tuple[dict[str, str], Sequence[str]]:
    """Return the columns by their key in `COLUMNS`, and the names of the classes if the label is a number.

    Raises `ManifestError` if there is no audio or no label.
    """
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    features = {
        name: feature for name, feature in described.items() if isinstance(feature, dict)
    }  # a list is its own feature
    audio = [name for name, feature in features.items() if feature.get("_type") == "Audio"]
    known = COLUMNS | {"audio": (*audio, *COLUMNS["audio"])}
    existing = {role: [name for name in names if name in schema.names] for role, names in known.items()}
    columns = {role: names[0] for role, names in existing.items() if names}
    if not {"audio", "label"} <= columns.keys():
        missing = "audio" if "audio" not in columns else f"emotions ({', '.join(COLUMNS['label'])})"
        raise ManifestError(
            f"{file}: no column of {missing}; it has {', '.join(schema.names)}: rename the column with datasets' rename_column"
        )
    return columns, features.get(columns["label"], {}).get("names") or ()


def _to_recording(
    values: Mapping[str, Any], names: Sequence[str], entry: str, path: Path, exported: Path
) -> Recording | Skipped:
    cells = {role: "" if value is None else str(value).strip() for role, value in values.items() if role != "audio"}
    number = values["label"]
    label = names[number] if isinstance(number, int) and 0 <= number < len(names) else cells["label"]
    if not label:
        return Skipped(entry=entry, reason="no label")
    audio = _audio_of(values["audio"], path, exported)
    if audio is None:
        return Skipped(entry=entry, reason="no sound in the row, and no such file")
    return Recording(
        audio=audio,
        speaker=cells.get("speaker") or path.resolve().name,
        label=label,
        text=cells.get("text", ""),
        language=cells.get("language", ""),
    )


def _audio_of(sound: Any, path: Path, exported: Path) -> Path | None:
    """Return the audio as a file: written under the hash of its bytes, or found at its path; None if neither exists."""
    if not isinstance(sound, dict):
        sound = {"bytes" if isinstance(sound, bytes) else "path": sound}
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
    name = sound.get("path")
    return path / name if isinstance(name, str) and (path / name).is_file() else None


READERS.register("hugging-face", HuggingFace())

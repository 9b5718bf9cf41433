"""Read labelled speech tokens in the file formats of CosyVoice's tools.

- A folder of its recipes: ``utt2speech_token.pt`` (``{utt: [ids]}``), the tables ``text`` and ``utt2spk``, and ``utt2emotion``,
  which is our addition, with one line ``UTT EMOTION`` per utterance.
- ``.parquet`` with ``emotion`` and the columns ``utt, text, spk, speech_token`` of its training shards (``parquet_*.tar``, which
  are parquet files).
- ``.jsonl`` with the same names as keys.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rrpo.corpus.manifest import NO_TEXT, Utterance
from rrpo.corpus.prompts import Prompt
from rrpo.cosyvoice.layout import CODES, reading
from rrpo.errors import InputError

COLUMNS = ("utt", "text", "spk", "emotion", "speech_token")
"""Columns of a parquet file, or keys of a JSON line."""
SAMPLES = "utt2speech_token.pt"
"""File of tokens by utterance in a run's output folder, in upstream's format."""
SCALARS = "scalars.json"
"""File of a run's numbers, the last one that is written."""
SHOWN = 5
"""Maximum number of faults that an error lists; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class TokenUtterance:
    """One labelled utterance."""

    id: str
    text: str
    speaker: str
    emotion: str
    tokens: tuple[int, ...]
    """Speech tokens, 25 per second."""

    @property
    def prompt(self) -> Prompt:
        """The prompt for the same text and emotion; its letters and digits are used as phones."""
        characters = tuple(character for character in self.text.lower() if character.isalnum())
        return Prompt(id=self.id, text=self.text, phones=characters, speaker=self.speaker, emotion=self.emotion)


def read(path: Path, emotions: Sequence[str] | None = None) -> tuple[TokenUtterance, ...]:
    """Read the utterances of a folder or file; those without tokens (upstream extracts none above 30 s) are left out.

    Args:
        path: A folder, ``.parquet``, ``.tar`` or ``.jsonl``.
        emotions: Emotions to keep; None: all.

    Raises:
        InputError: Files, columns or labels are missing, an id is not a code, an utterance occurs twice, or none is left.
    """
    path = Path(path)
    fix = "give a folder with utt2speech_token.pt, a .parquet (or upstream's .tar) or a .jsonl; or extract it again"
    with reading(path, "labelled tokens", fix):
        rows = list(_rows(path))
    faults = [f"{row.get('utt', '?')}: {fault}" for row in rows for fault in _faults(row)]
    times = Counter(str(row["utt"]) for row in rows if row.get("utt") is not None)
    faults += [f"{name}: occurs {count} times" for name, count in times.items() if count > 1]
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise InputError(
            f"{path} has utterances that cannot be used",
            got="".join(f"\n    {fault}" for fault in faults[:SHOWN] + more),
            fix=f"every utterance needs {', '.join(COLUMNS)}, and occurs once; codes are 0 to {CODES - 1}",
        )
    utterances = tuple(
        TokenUtterance(
            id=str(row["utt"]),
            text=str(row["text"]),
            speaker=str(row["spk"]),
            emotion=str(row["emotion"]),
            tokens=tuple(map(int, row["speech_token"])),
        )
        for row in rows
        if len(row["speech_token"]) and (emotions is None or row["emotion"] in emotions)
    )
    if not utterances:
        raise InputError(
            f"{path} has no usable utterance",
            got=f"{len(rows)} utterances, all skipped",
            fix="give utterances with speech tokens and one of the requested emotions",
        )
    return utterances


def write(path: Path, tokens: Mapping[str, Sequence[int]]) -> None:
    """Write ``{utt: [ids]}`` in the format of upstream's ``utt2speech_token.pt``."""
    torch.save({name: [int(token) for token in row] for name, row in tokens.items()}, path)


def load(run: Path) -> dict[str, list[int]]:
    """Return what `write` wrote into the output folder of a run.

    Raises:
        InputError: The run is not finished, or the file cannot be read.
    """
    fix = "give the output folder of a finished `python -m rrpo.cosyvoice train`"
    if missing := [name for name in (SAMPLES, SCALARS) if not (run / name).is_file()]:
        raise InputError(f"{run} contains no finished run", got=f"no {', no '.join(missing)}", fix=fix)
    with reading(run / SAMPLES, "samples", fix):
        return dict(torch.load(run / SAMPLES, weights_only=True))


def write_labelled(
    path: Path, extract: Callable[[Collection[str]], Iterable[tuple[Utterance, Sequence[int]]]], source: str
) -> int:
    """Write utterances of a manifest and their tokens as JSON lines for `read`; return their number.

    The lines are written as they come, to ``PATH.partial``, which is renamed at the end. What an interrupted call with the same
    source has written is kept.

    Args:
        path: File to write.
        extract: Given the ids of the utterances that are there already, yields the others and their tokens.
        source: Hash of what determines the tokens.

    Raises:
        InputError: ``path`` has another suffix than .jsonl, or cannot be written.
    """
    if path.suffix != ".jsonl":
        raise InputError("labelled tokens are written as JSON lines", got=path, fix="give a name that ends in .jsonl")
    partial, made_from = (path.with_name(f"{path.name}.{ending}") for ending in ("partial", "source"))
    with _writing():
        if not (made_from.is_file() and made_from.read_text() == source):
            partial.unlink(missing_ok=True)
            made_from.write_text(source)
        present = _written(partial)
        file = partial.open("a", encoding="utf-8")
    with file:
        for u, ids in extract(present):
            row = (u.id, u.text, u.speaker, u.emotion, [int(token) for token in ids])
            with _writing():
                file.write(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n")
                file.flush()
            present.add(u.id)
    with _writing():
        partial.replace(path)
        made_from.unlink()
    return len(present)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "give a file in a writable folder with enough free space; the same command continues"
        raise InputError("the tokens cannot be written", got=error, fix=fix) from error


def _written(partial: Path) -> set[str]:
    """Return the ids of the utterances in an unfinished file, from which a line that was cut off is removed."""
    if not partial.is_file():
        return set()
    whole = partial.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    os.truncate(partial, len(whole))
    return {str(json.loads(line)["utt"]) for line in whole.splitlines()}


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    """Return one row per utterance, with those of `COLUMNS` that exist."""
    if path.is_dir():
        return _folder(path)
    if path.suffix in (".parquet", ".tar"):
        import pyarrow.parquet as pq

        names = set(pq.read_schema(path).names)
        return pq.read_table(path, columns=[name for name in COLUMNS if name in names]).to_pylist()
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_parsed(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    raise ValueError(f"unknown format, {path.suffix or 'no suffix'}")


def _parsed(number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        row = error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not a JSON object: {row!r}")
    return row


def _folder(folder: Path) -> list[dict[str, Any]]:
    tables = {"text": "text", "utt2spk": "spk", "utt2emotion": "emotion"}
    missing = [name for name in ("utt2speech_token.pt", *tables) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is not a folder of labelled tokens",
            got=f"no {', no '.join(missing)}",
            fix="CosyVoice's recipe writes all files except utt2emotion, which needs one line `UTT EMOTION` per utterance",
        )
    tokens = torch.load(folder / "utt2speech_token.pt", map_location="cpu", weights_only=True)
    rows = {name: {"utt": name, "speech_token": ids} for name, ids in tokens.items()}
    for file, column in tables.items():
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            name, value, *_ = *line.split(maxsplit=1), "", ""  # an empty line names no utterance
            if name in rows and value:
                rows[name][column] = value.strip()
    return list(rows.values())


def _faults(row: Mapping[str, Any]) -> list[str]:
    """Return the faults of one row."""
    missing = [name for name in COLUMNS if row.get(name) is None or (name == "emotion" and not row[name])]
    if missing:
        return [f"no {', no '.join(missing)}"]
    if wrong := [name for name in ("text", "emotion") if not isinstance(row[name], str)]:
        return [f"{wrong[0]} is {row[wrong[0]]!r:.40}, not a string"]
    if row["text"].strip() in ("", NO_TEXT):
        return ["no transcript, without which no policy can learn it"]
    if not isinstance(row["speech_token"], Sequence) or isinstance(row["speech_token"], str):
        return [f"speech_token is {row['speech_token']!r:.40}, not a list of ids"]
    invalid = [token for token in row["speech_token"] if not (isinstance(token, int) and 0 <= token < CODES)]
    return [f"{len(invalid)} ids are not codes, the first {invalid[0]!r}"] if invalid else []

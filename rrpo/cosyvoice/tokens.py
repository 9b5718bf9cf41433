"""Labelled speech tokens from the files in which CosyVoice's own tools leave them.

- A folder of its recipes: ``utt2speech_token.pt`` (``{utt: [ids]}``), the tables ``text`` and ``utt2spk``, and ``utt2emotion``,
  which is ours: a line ``UTT EMOTION`` an utterance.
- ``.parquet`` with the columns ``utt, text, spk, speech_token`` of its training shards (``parquet_*.tar``, parquet by content),
  and ``emotion``.
- ``.jsonl`` with the same names as keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rrpo.corpus.manifest import Utterance
from rrpo.corpus.prompts import Prompt
from rrpo.cosyvoice.layout import CODES
from rrpo.errors import InputError

COLUMNS = ("utt", "text", "spk", "emotion", "speech_token")
"""Of a parquet file or a JSON line."""
SHOWN = 5
"""Faults that an error names; the rest are counted."""


class TokenFileError(InputError):
    """Token files that cannot be used: what is wrong, what was got, how to mend it."""


@dataclass(frozen=True, kw_only=True)
class TokenUtterance:
    """One labelled utterance."""

    id: str
    text: str
    speaker: str
    emotion: str
    tokens: tuple[int, ...]
    """Speech tokens, 25 a second."""

    @property
    def prompt(self) -> Prompt:
        """What a policy is asked for the same text and emotion; its characters, blanks apart, stand for phones."""
        characters = tuple(character for character in self.text.lower() if character.isalnum())
        return Prompt(id=self.id, text=self.text, phones=characters, speaker=self.speaker, emotion=self.emotion)


@dataclass(frozen=True)
class TokenCorpus:
    """What `read` found."""

    utterances: tuple[TokenUtterance, ...]
    skipped: Mapping[str, str]
    """Utterance -> why it was left out."""

    @property
    def emotions(self) -> tuple[str, ...]:
        """Classes, sorted."""
        return tuple(sorted({utterance.emotion for utterance in self.utterances}))


def read(path: Path, emotions: Sequence[str] | None = None) -> TokenCorpus:
    """The utterances of a folder or file. Those without tokens (upstream leaves none above 30 s) are skipped and named.

    Args:
        path: A folder, ``.parquet`` or ``.tar``, or ``.jsonl``.
        emotions: Those that are wanted, others are skipped; None: all.

    Raises:
        TokenFileError: Files, columns or labels are missing, an id is no code, or nothing is left.
    """
    path = Path(path)
    rows = list(_rows(path))
    faults = [f"{row.get('utt', '?')}: {fault}" for row in rows for fault in _faults(row)]
    if faults:
        more = f"\n    and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise TokenFileError(
            f"{path} has utterances that cannot be used",
            got="\n" + "\n".join(f"    {fault}" for fault in faults[:SHOWN]) + f"{more}",
            fix=f"every utterance needs {', '.join(COLUMNS)}; codes are 0 to {CODES - 1}",
        )
    kept, skipped = [], {}
    for row in rows:
        if not len(row["speech_token"]):
            skipped[str(row["utt"])] = "no speech tokens"
        elif emotions is not None and row["emotion"] not in emotions:
            skipped[str(row["utt"])] = f"emotion {row['emotion']}"
        else:
            kept.append(
                TokenUtterance(
                    id=str(row["utt"]),
                    text=str(row["text"]),
                    speaker=str(row["spk"]),
                    emotion=str(row["emotion"]),
                    tokens=tuple(int(token) for token in row["speech_token"]),
                )
            )
    if not kept:
        raise TokenFileError(
            f"{path} holds no utterance that can be used",
            got=f"{len(rows)} utterances, all skipped",
            fix="give one with speech tokens and a wanted emotion",
        )
    return TokenCorpus(tuple(kept), skipped)


def write(path: Path, tokens: Mapping[str, Sequence[int]]) -> None:
    """``{utt: [ids]}`` as upstream's ``utt2speech_token.pt``."""
    torch.save({name: [int(token) for token in row] for name, row in tokens.items()}, path)


def write_labelled(path: Path, labelled: Iterable[tuple[Utterance, Sequence[int]]]) -> None:
    """Utterances of a manifest and their tokens as JSON lines that `read` takes."""
    with path.open("w", encoding="utf-8") as file:
        for utterance, row in labelled:
            values = (utterance.id, utterance.text, utterance.speaker, utterance.emotion, [int(token) for token in row])
            file.write(json.dumps(dict(zip(COLUMNS, values, strict=True)), ensure_ascii=False) + "\n")


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    """Every utterance as a row with `COLUMNS`, as far as they are there."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise TokenFileError(
            f"{path} is not there", got="no such file or folder", fix="give a folder, .parquet or .jsonl"
        )
    if path.suffix in (".parquet", ".tar"):
        import pyarrow.parquet as pq

        names = set(pq.read_schema(path).names)
        return pq.read_table(path, columns=[name for name in COLUMNS if name in names]).to_pylist()
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_parsed(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    raise TokenFileError(
        f"{path} is of an unknown kind",
        got=path.suffix or "no suffix",
        fix="give a folder with utt2speech_token.pt, a .parquet (or upstream's .tar) or a .jsonl",
    )


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise TokenFileError(f"{path}:{number} is no JSON", got=error, fix="one object a line") from error
    if not isinstance(found, dict):
        raise TokenFileError(f"{path}:{number} is no object", got=type(found).__name__, fix="one object a line")
    return found


def _folder(folder: Path) -> list[dict[str, Any]]:
    tables = {"text": "text", "utt2spk": "spk", "utt2emotion": "emotion"}
    lacking = [name for name in ("utt2speech_token.pt", *tables) if not (folder / name).is_file()]
    if lacking:
        raise TokenFileError(
            f"{folder} is no folder of labelled tokens",
            got=f"no {', no '.join(lacking)}",
            fix="CosyVoice's recipe writes all but utt2emotion, which holds a line `UTT EMOTION` an utterance",
        )
    tokens = torch.load(folder / "utt2speech_token.pt", map_location="cpu", weights_only=True)
    rows = {name: {"utt": name, "speech_token": ids} for name, ids in tokens.items()}
    for file, column in tables.items():
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            name, _, value = line.strip().partition(" ")
            if name in rows:
                rows[name][column] = value.strip()
    return list(rows.values())


def _faults(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with one row."""
    lacking = [name for name in COLUMNS if row.get(name) is None or (name == "emotion" and not row[name])]
    if lacking:
        return [f"no {', no '.join(lacking)}"]
    wrong = [token for token in row["speech_token"] if not (isinstance(token, int) and 0 <= token < CODES)]
    return [f"{len(wrong)} ids are no codes, the first {wrong[0]!r}"] if wrong else []

"""Utterances and their JSON-lines manifests.

A line of a user's manifest needs ``audio`` (path relative to the manifest; not for prompts), ``text``, ``speaker``,
``language`` and ``emotion``. Optional keys: ``id``, ``phones`` (a list; default: espeak-ng's phones) and ``votes`` (a list of
emotions, one per rater).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrpo.corpus import espeak
from rrpo.corpus.render import RenderSpec
from rrpo.corpus.speakers import Speaker
from rrpo.errors import InputError

NO_TEXT = "(no text)"
"""Text of an utterance without a transcript: judges and reward models can use it, policies cannot."""
REQUIRED = ("audio", "text", "speaker", "language", "emotion")
"""Required keys of a user's manifest. ``audio`` is first because prompts and rendered utterances omit it."""


class ManifestError(InputError):
    """A manifest or a line of it cannot be used. The message gives file and line, the error, the value and the fix."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One labelled utterance, either recorded (``audio``) or rendered (``spec``)."""

    id: str
    """Unique within its split."""
    text: str
    phones: tuple[str, ...]
    """Segmental phones, without stress, tone or word marks."""
    speaker: str
    """`Speaker.id`, or the name in the manifest."""
    language: str
    emotion: str
    """The label: the majority vote of the raters; without raters ``true_emotion``, or the requested emotion where speakers may
    act another one."""
    true_emotion: str
    """The rendered emotion; in a user's manifest, the label."""
    votes: tuple[str, ...] | None = None
    """One emotion per rater."""
    split: str
    """Name of the split."""
    audio: str | None = None
    """Audio file."""
    spec: RenderSpec | None = None
    """Specification to render."""
    artefact: str | None = None
    """Planted artefact, one of `rrpo.corpus.config.ARTEFACTS`."""


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write one JSON object per line, in the given order."""
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for utterance in utterances:
            out.write(json.dumps(dataclasses.asdict(utterance), ensure_ascii=False) + "\n")


def read_manifest(
    path: str | Path, emotions: Sequence[str] | None, split: str = "manifest", *, audio: bool = True
) -> list[Utterance]:
    """Return the utterances of a manifest. Audio is checked later, when features are built; prompts have none.

    ``emotions`` are the allowed ones; None: any. Raises `ManifestError` with ``file:line`` at the first line that cannot be used.
    """
    return list(Manifest(path=Path(path), emotions=emotions, split=split, audio=audio))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Iterable over the utterances of a manifest; each iteration reads the file again, one line at a time.

    Memory holds one utterance; to detect duplicate ids, also one byte per line, or 64 bytes per line that gives an id.
    """

    path: Path
    """JSON-lines file."""
    emotions: Sequence[str] | None
    """Allowed emotions; None: any."""
    split: str = "manifest"
    """Name of the split."""
    audio: bool = True
    """Whether lines must have audio."""

    def __iter__(self) -> Iterator[Utterance]:
        """Yield the utterances. Raises `ManifestError` at the first line that cannot be used."""
        hashes: set[int] = set()
        defaults = bytearray(1)  # by line number: whether the line has its default id
        for number, line in self._lines():
            try:
                utterance = self._parse(line, self._default_id(number))
                duplicate = hash(utterance.id) in hashes or self._has_default_id(utterance.id, defaults)
                if duplicate and (first := self._line_of(utterance.id, number)):
                    raise ManifestError(f"id {utterance.id!r} was used on line {first}; give each line a unique id")
            except ManifestError as error:
                raise ManifestError(f"{self.path}:{number}: {error}") from error.__cause__
            defaults.extend(bytes(number + 1 - len(defaults)))
            if utterance.id == self._default_id(number):
                defaults[number] = True
            else:
                hashes.add(hash(utterance.id))
            yield utterance
        if len(defaults) == 1:
            raise ManifestError(
                f"{self.path}: the manifest is empty; write one JSON object per line with the keys {', '.join(REQUIRED)}"
            )

    def _parse(self, line: str, default_id: str) -> Utterance:
        """Return the utterance of a line. Raises `ManifestError`, without the name of the file, if it cannot be used."""
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            position = f"{error.msg} at column {error.colno}"
            raise ManifestError(f"not JSON ({position}); write one JSON object per line") from error
        if not isinstance(row, dict):
            raise ManifestError(f"a {type(row).__name__}, not an object; write one JSON object per line")
        rendered = row.get("spec") is not None
        required = REQUIRED if self.audio and not rendered else REQUIRED[1:]
        missing = [key for key in required if key not in row]
        if missing:
            raise ManifestError(f"lacks {', '.join(missing)}; got the keys {', '.join(row)}; add what is missing")
        for key in required:
            if not (isinstance(row[key], str) and row[key].strip()):
                raise ManifestError(f"{key} is {row[key]!r}; give a non-empty string")
        votes = _names(row, "votes")
        for emotion in (row["emotion"], *(votes or ())):
            if unnamable := sorted(set("/\\\0") & set(emotion)):
                raise ManifestError(
                    f"the emotion {emotion!r} contains {unnamable[0]!r}; files are named after emotions: rename it"
                )
            if self.emotions is not None and emotion not in self.emotions:
                raise ManifestError(f"unknown emotion {emotion!r}; use one of {', '.join(self.emotions)}")
        try:
            phones = _names(row, "phones") or espeak.phones([row["text"]], row["language"])[0]
        except espeak.EspeakError as error:
            raise ManifestError(f"no phones ({error}); give them under the key phones") from error
        return Utterance(
            id=str(row.get("id", default_id)),
            text=row["text"],
            phones=phones,
            speaker=row["speaker"],
            language=row["language"],
            emotion=row["emotion"],
            true_emotion=str(row.get("true_emotion", row["emotion"])),
            votes=votes,
            split=row.get("split", self.split),
            audio=str(self.path.parent / row["audio"]) if "audio" in required else None,
            spec=_spec(row["spec"]) if rendered else None,
            artefact=row.get("artefact"),
        )

    def _default_id(self, number: int) -> str:
        """Return the id of a line that gives none."""
        return f"{self.path.stem}-{number:05d}"

    def _has_default_id(self, id: str, defaults: bytearray) -> bool:
        """Return whether one of the lines marked in ``defaults`` has this id."""
        _, _, tail = id.rpartition("-")
        number = int(tail) if tail.isdecimal() else 0
        return defaults[number : number + 1] == b"\1" and id == self._default_id(number)

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yield the number (from 1) and text of each non-blank line."""
        if not self.path.is_file():
            raise ManifestError(f"{self.path}: no such manifest; give the path of a JSON-lines file")
        try:
            with self.path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield number, line.removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{self.path}: cannot be read ({error}); give a JSON-lines file in UTF-8") from error

    def _line_of(self, id: str, before: int) -> int | None:
        """Return the first line with this id, if it comes ``before`` the given line."""
        for number, line in self._lines():
            if number == before:
                return None
            if str(json.loads(line).get("id", self._default_id(number))) == id:
                return number
        return None


def phone_inventory(utterances: Iterable[Utterance]) -> tuple[str, ...]:
    """Return all phones that occur, sorted."""
    return tuple(sorted({phone for utterance in utterances for phone in utterance.phones}))


def _names(row: dict[str, Any], key: str) -> tuple[str, ...] | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ManifestError(f"{key} is {value!r}; give a list of strings, or leave it out")
    return tuple(map(sys.intern, value))  # a phone is one object, however many lines have it


def _spec(row: Any) -> RenderSpec:
    try:
        return RenderSpec(**{**row, "speaker": Speaker(**row["speaker"]), "cues": tuple(row["cues"])})
    except (TypeError, KeyError) as error:
        fix = "give audio instead, or restore the original spec"
        raise ManifestError(f"spec is not a RenderSpec ({error}); {fix}") from error

"""Import a corpus: check its recordings, map their labels, and write one manifest per split.

Lines are written as they are read, so memory holds only speakers, counts and the hash of each file (about 100 bytes).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any

import soundfile

from rrpo.audio import AudioError, load_wave
from rrpo.commands import option
from rrpo.corpus import espeak, recordings
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.draws import key
from rrpo.corpus.manifest import NO_TEXT, ManifestError
from rrpo.corpus.readers import CorpusReader, Recording, Skipped

NO_PHONE = "?"
"""Text and phone of a manifest line without a known text. The phone is no phone of any language, so no policy learns it by
accident."""


@dataclass
class Summary:
    """Statistics of an imported corpus."""

    utterances: Counter[str] = field(default_factory=Counter)
    """Usable utterances per label."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Duration of the usable utterances per label."""
    speakers: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Speakers of the usable utterances per label."""
    unmapped: Counter[str] = field(default_factory=Counter)
    """Number of entries per label that the map lacks."""
    skipped: list[Skipped] = field(default_factory=list)
    """All other entries that were left out."""
    without_text: int = 0
    """Number of usable utterances without a text."""
    written: Counter[Path] = field(default_factory=Counter)
    """Number of lines per manifest."""
    energy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Sum of power times seconds per speaker."""
    spoken: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of speech per speaker."""
    checksum: str = ""
    """Hash of the contents of the usable files in order; equal for another copy of the corpus that gives the same manifest."""
    copies: Path | None = None
    """Folder of converted files; None without ``loudness``."""

    def add(self, entry: Recording, sound: recordings.Sound) -> None:
        """Count a usable utterance."""
        self.utterances[entry.label] += 1
        self.seconds[entry.label] += sound.seconds
        self.speakers[entry.label].add(entry.speaker)
        self.energy[entry.speaker] += sound.power * sound.seconds
        self.spoken[entry.speaker] += sound.seconds
        self.without_text += not entry.text


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a corpus is imported; the docstrings are the help of the command (`rrpo.commands.options_of`)."""

    language: str = option("Options", "")
    """Language code such as en, de or cmn, for recordings without one."""
    only: str = option("Options", "")
    """Use recordings in this language only."""
    split: list[str] | None = option("Options", None, metavar="NAME=SHARE")
    """Split and its share of the speakers; repeat with shares that add up to 1. Splits have no speaker in common, and depend only
    on the speakers and the seed."""
    folds: int | None = option("Options", None)
    """Instead of --split: number of folds over speakers, 2 or more, in out.foldK.train.jsonl and out.foldK.test.jsonl."""
    seed: int = option("Options", 0)
    """Seed of the assignment of speakers to splits."""
    loudness: float | None = option("Options", None, metavar="DBFS")
    """Write mono 16 kHz copies with this mean level per speaker, such as -26, to the folder out.audio. The gain is constant per
    speaker, so that anger stays louder than sadness. Default: use the files unchanged."""
    longest: float = option("Options", recordings.LONGEST)
    """Maximum duration in seconds; longer files are skipped."""

    def parts(self, speakers: set[str]) -> dict[str, list[str]]:
        """Return the names of the manifests that have each speaker's lines; the name is empty without splits or folds.

        Raises ManifestError if a share is invalid or there are too few speakers.
        """
        if self.folds is None:
            return {speaker: [name] for speaker, name in assign(speakers, self.shares(), self.seed).items()}
        folds = [str(number) for number in range(1, self.folds + 1)]
        tested = assign(speakers, dict.fromkeys(folds, 1 / self.folds), self.seed)
        return {
            speaker: [f"fold{fold}.{'test' if fold == own else 'train'}" for fold in folds]
            for speaker, own in tested.items()
        }

    def shares(self) -> dict[str, float]:
        """Parse ``split``; without it, all speakers have the empty name. Raises `ManifestError` if it is invalid."""
        if self.folds is not None and (self.split or self.folds < 2):
            got = ", ".join([f"{self.folds} folds", *(self.split or [])])
            raise ManifestError(
                f"--folds takes 2 or more, and no --split; got {got}; give more folds, or only one of them"
            )
        if not self.split:
            return {"": 1.0}
        shares: dict[str, float] = {}
        for entry in self.split:
            match = re.fullmatch(r"(?P<name>[^/=]+)=(?P<share>\d*\.?\d+)", entry)
            if match is None or match["name"] in shares:
                raise ManifestError(
                    f"--split takes NAME=SHARE, with each name once and a positive share; got {entry!r}; use, for example, "
                    "train=.8"
                )
            shares[match["name"]] = float(match["share"])
        check_shares(shares)
        return shares


def import_corpus(
    reader: CorpusReader,
    path: Path,
    out: Path,
    *,
    labels: Mapping[str, str],
    report: Callable[[Summary], None] = lambda summary: None,
    **settings: Any,
) -> Summary:
    """Write the manifest ``out`` of the corpus at ``path``; with splits or folds, several manifests named by `split_path`.

    Args:
        reader: Reader for the layout of the corpus.
        path: Folder of the corpus.
        out: JSON-lines file; an existing file is replaced after the corpus has been read.
        labels: Map from labels to emotions; empty: labels are emotions.
        report: Called after each entry, and after each converted copy.
        settings: Fields of `Settings`.

    Raises:
        ManifestError: The corpus cannot be read, has no usable entry, or has too few speakers for the splits, a setting is
            invalid, or ``out`` is a folder.
        OSError: A file or folder cannot be read or written.
    """
    options, summary = Settings(**settings), Summary()
    options.shares()  # raises before anything is read
    if options.loudness is not None and not -100 <= options.loudness <= 0:
        raise ManifestError(
            f"--loudness takes a level in dBFS from -100 to 0; got {options.loudness:g}; use, for example, -26"
        )
    if out.is_dir():
        raise ManifestError(f"{out}: a folder, not a manifest to write; give a file, such as {out / 'manifest.jsonl'}")
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("w", encoding="utf-8") as file:
            for line in _lines(reader.read(path), out.parent.resolve(), labels, options, summary, report):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not summary.utterances:
            raise ManifestError(f"{path}: no usable recording: {_why_empty(summary, labels)}")
        _distribute(partial, out, options, summary, report)
    finally:
        for leftover in out.parent.glob(f"{escape(partial.name)}*"):
            leftover.unlink()
    return summary


def check_shares(splits: Mapping[str, float]) -> None:
    """Raise `ManifestError` unless the shares of the splits are positive and add up to 1."""
    if abs(sum(splits.values()) - 1) > 1e-6 or min(splits.values()) <= 0:
        shares = ", ".join(f"{name}={share:g}" for name, share in splits.items())
        raise ManifestError(f"the shares of the splits are {shares}; give positive shares that add up to 1")


def assign(speakers: set[str], splits: Mapping[str, float], seed: int) -> dict[str, str]:
    """Map each speaker to a split: sort speakers by a keyed hash and divide them by the shares, at least one speaker per split.

    Raises `ManifestError` if the shares do not add up to 1, or if there are more splits than speakers.
    """
    check_shares(splits)
    if len(speakers) < len(splits):
        raise ManifestError(
            f"{len(speakers)} speaker(s) are too few for {len(splits)} splits without a speaker in common: use fewer "
            "splits, or a reader that distinguishes speakers"
        )
    order = sorted(speakers, key=lambda speaker: (key(seed, "speaker split", speaker), speaker))
    split_of: dict[str, str] = {}
    start, share_before = 0, 0.0
    for index, (name, share) in enumerate(splits.items()):
        share_before += share
        splits_left = len(splits) - index - 1
        end = min(max(round(share_before * len(order)), start + 1), len(order) - splits_left)
        split_of |= dict.fromkeys(order[start:end], name)
        start = end
    return split_of


def split_path(out: Path, name: str) -> Path:
    """Return the manifest path of one split: ``mine.train.jsonl`` for ``mine.jsonl``, or ``mine.jsonl`` for an empty name."""
    return out.with_name(f"{out.stem}.{name}{out.suffix}") if name else out


def _lines(
    entries: Iterator[Recording | Skipped],
    folder: Path,
    labels: Mapping[str, str],
    options: Settings,
    summary: Summary,
    report: Callable[[Summary], None],
) -> Iterator[dict[str, object]]:
    """Yield the manifest line of each usable recording, and count all entries in ``summary``."""
    seen: set[bytes] = set()
    checksum = hashlib.sha256()

    def skip(entry: object, reason: str) -> None:
        printable = str(entry).encode(errors="replace").decode()  # a name may have bytes that are not UTF-8
        summary.skipped.append(Skipped(entry=printable, reason=reason))

    for entry in entries:
        if isinstance(entry, Skipped):
            skip(entry.entry, entry.reason)
        elif options.only not in ("", entry.language or options.language):
            skip(entry.audio, "in another language")
        elif labels and entry.label not in labels:
            summary.unmapped[entry.label] += 1
        else:
            try:
                sound = recordings.examine(entry.audio, AudioConfig().sample_rate, options.longest)
                digest = bytes.fromhex(sound.digest)
                if digest in seen:
                    raise AudioError(f"{entry.audio}: the same bytes as another file; duplicates are skipped")
                spoken = replace(entry, language=entry.language or options.language)
                line = _line(spoken, folder, labels.get(entry.label, entry.label), sound.digest)
            except (AudioError, espeak.EspeakError, OSError) as error:
                skip(entry.audio, _reason(error, entry))
            else:
                seen.add(digest)
                checksum.update(sound.digest.encode())
                summary.add(entry, sound)
                yield line
        report(summary)
    summary.checksum = checksum.hexdigest()[:32]


def _line(entry: Recording, folder: Path, emotion: str, digest: str) -> dict[str, object]:
    """Return one manifest line. Raises EspeakError if the text has no phones."""
    if not entry.language:
        raise ManifestError(
            f"{entry.audio}: the corpus does not give the language; set --language, for example to en, de or cmn"
        )
    audio = entry.audio.resolve()
    return {
        "audio": str(audio.relative_to(folder) if audio.is_relative_to(folder) else audio),
        "text": entry.text or NO_TEXT,
        "phones": _phones(entry.text, entry.language) if entry.text else [NO_PHONE],
        "speaker": entry.speaker,
        "language": entry.language,
        "emotion": emotion,
        "sha256": digest,
    }


@lru_cache(maxsize=4096)
def _phones(text: str, language: str) -> tuple[str, ...]:
    """Return espeak-ng's phones, cached because many corpora repeat a few sentences."""
    return espeak.phones([text], language)[0]


def _distribute(lines: Path, out: Path, options: Settings, summary: Summary, report: Callable[[Summary], None]) -> None:
    """Write each of ``lines`` to the manifests of its speaker; with a loudness, convert its audio to a copy."""
    parts = options.parts(set(summary.spoken))
    if options.loudness is not None:
        summary.copies = out.with_name(f"{out.stem}.audio")
        summary.copies.mkdir(exist_ok=True)
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(lines.with_name(f"{lines.name}.{name}").open("w", encoding="utf-8"))
            for name in sorted(set().union(*parts.values()))
        }
        for line in stack.enter_context(lines.open(encoding="utf-8")):
            row = json.loads(line)
            speaker = row["speaker"]
            if summary.copies is not None and options.loudness is not None:
                level = 10 * math.log10(summary.energy[speaker] / summary.spoken[speaker])
                gain = round(options.loudness - level, 2)
                copy = _converted(out.parent / row["audio"], gain, summary.copies / f"{row['sha256']}{gain:+.2f}dB.wav")
                row["audio"] = f"{summary.copies.name}/{copy.name}"
                report(summary)
            for name in parts[speaker]:
                files[name].write(json.dumps(row, ensure_ascii=False) + "\n")
                summary.written[split_path(out, name)] += 1
    for name, file in files.items():
        os.replace(file.name, split_path(out, name))


def _converted(audio: Path, gain: float, copy: Path) -> Path:
    """Write ``copy``, mono at the models' rate and ``gain`` dB louder, unless it exists. Return its path.

    Raises:
        OSError: The recording cannot be read any more, or the copy cannot be written.
    """
    if not copy.is_file():
        rate = AudioConfig().sample_rate
        partial = copy.with_name(f".{copy.name}.{os.getpid()}.wav")
        try:
            soundfile.write(partial, load_wave(audio, rate).numpy() * 10 ** (gain / 20), rate, subtype="FLOAT")
            os.replace(partial, copy)
        except (AudioError, soundfile.SoundFileError) as error:  # soundfile has its own error for a full disk
            raise OSError(f"{audio} cannot be converted to {copy}: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
    return copy


def _reason(error: Exception, entry: Recording) -> str:
    """Return the reason of an error without file-specific details, so that equal reasons can be counted."""
    text = str(error).removeprefix(f"{entry.audio}: ")
    for end in (" (", "; ", ": "):
        text = text.partition(end)[0]
    return text.replace(repr(entry.text), "the text")


def _why_empty(summary: Summary, labels: Mapping[str, str]) -> str:
    if summary.unmapped:
        counts = ", ".join(f"{label} ({count})" for label, count in summary.unmapped.most_common(5))
        return (
            f"no label is in the map; the corpus has {counts}, the map has {', '.join(labels)}: give matching --labels"
        )
    reasons = Counter(entry.reason for entry in summary.skipped)
    text = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3)) or "the reader found no entries"
    return f"{text}; give the top folder of the corpus, or use the reader of its layout"

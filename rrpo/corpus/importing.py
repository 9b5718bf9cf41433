"""Import a corpus: check its recordings, map their labels, and write one manifest per split.

Lines are written as they are read, so memory holds only speakers, counts and the hash of each file (about 100 bytes).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from glob import escape
from pathlib import Path

import soundfile

from rrpo.audio import AudioError, load_wave
from rrpo.corpus import espeak, recordings
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.draws import key
from rrpo.corpus.manifest import ManifestError
from rrpo.corpus.readers import CorpusReader, Recording, Skipped

NO_TEXT, NO_PHONE = "(no text)", "?"
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
    written: dict[Path, int] = field(default_factory=dict)
    """Number of lines per manifest."""
    energy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Sum of power times seconds per speaker."""
    spoken: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of speech per speaker."""
    checksum: str = ""
    """Hash of the contents of the usable files in order; equal for another copy of the corpus that gives the same manifest."""
    copies: Path | None = None
    """Folder of converted files; None without ``loudness``."""


def import_corpus(
    reader: CorpusReader,
    path: Path,
    out: Path,
    *,
    labels: Mapping[str, str],
    language: str = "",
    only: str = "",
    splits: Mapping[str, float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    loudness: float | None = None,
    longest: float = recordings.LONGEST,
    report: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Write the manifest ``out`` of the corpus at ``path``; with ``splits`` or ``folds``, several manifests named by
    `split_path`.

    Args:
        reader: Reader for the layout of the corpus.
        path: Folder of the corpus.
        out: JSON-lines file; an existing file is replaced after the corpus has been read.
        labels: Map from labels to emotions; empty: labels are emotions.
        language: Language of recordings for which the corpus gives none.
        only: Use only recordings in this language; empty: all.
        splits: Share of the speakers per split. Splits have no speaker in common, and depend only on the speakers and ``seed``.
        folds: Instead of ``splits``, the number of cross-validation folds over speakers. Fold k tests on part k
            (``fold1.test``) and trains on the others (``fold1.train``).
        seed: Seed of the assignment of speakers to splits.
        loudness: Mean level of each speaker, dBFS. The manifest then names mono copies at the models' rate, in the folder
            ``mine.audio`` for ``mine.jsonl``. The gain is constant per speaker, so that anger stays louder than sadness. None:
            the manifest names the original files, which are converted to mono and resampled when they are read.
        longest: Maximum duration in seconds; longer files are skipped.
        report: Called after each entry.

    Raises:
        ManifestError: The corpus cannot be read, has no usable entry, or has too few speakers for the splits, or ``out`` is a
            folder.
        OSError: A file or folder cannot be read or written.
    """
    if out.is_dir():
        raise ManifestError(f"{out}: a folder, not a manifest to write; give a file, such as {out / 'manifest.jsonl'}")
    summary = Summary()
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("w", encoding="utf-8") as file:
            for line in _lines(reader, path, out.parent.resolve(), labels, language, only, longest, summary, report):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if loudness is not None:
            summary.copies = out.with_name(f"{out.stem}.audio")
            _convert(partial, out.parent, summary, loudness)
        if not summary.utterances:
            raise ManifestError(f"{path}: no usable recording: {_why_empty(summary, labels)}")
        speakers = set().union(*summary.speakers.values())
        if folds is not None:
            parts = [str(k + 1) for k in range(folds)]
            part_of = assign(speakers, dict.fromkeys(parts, 1 / folds), seed)
            names = {part: [f"fold{k}.{'test' if k == part else 'train'}" for k in parts] for part in parts}
            _write_splits(partial, out, {speaker: names[part] for speaker, part in part_of.items()}, summary)
        elif splits is not None:
            split_of = assign(speakers, splits, seed)
            _write_splits(partial, out, {speaker: [name] for speaker, name in split_of.items()}, summary)
        else:
            os.replace(partial, out)
            summary.written[out] = summary.utterances.total()
    finally:
        for leftover in out.parent.glob(f"{escape(partial.name)}*"):
            leftover.unlink()
    return summary


def assign(speakers: set[str], splits: Mapping[str, float], seed: int) -> dict[str, str]:
    """Map each speaker to a split: sort speakers by a keyed hash and divide them by the shares, at least one speaker per split.

    Raises `ManifestError` if the shares do not add up to 1, or if there are more splits than speakers.
    """
    if abs(sum(splits.values()) - 1) > 1e-6 or min(splits.values()) <= 0:
        shares = ", ".join(f"{name}={share:g}" for name, share in splits.items())
        raise ManifestError(f"the shares of the splits are {shares}; give positive shares that add up to 1")
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
    """Return the manifest path of one split: ``mine.train.jsonl`` for ``mine.jsonl``."""
    return out.with_name(f"{out.stem}.{name}{out.suffix}")


def _lines(
    reader: CorpusReader,
    path: Path,
    folder: Path,
    labels: Mapping[str, str],
    language: str,
    only: str,
    longest: float,
    summary: Summary,
    report: Callable[[Summary], None],
) -> Iterator[dict[str, object]]:
    """Yield the manifest line of each usable recording, and count all entries in ``summary``."""
    seen: set[bytes] = set()
    checksum = hashlib.sha256()
    for entry in reader.read(path):
        if isinstance(entry, Skipped):
            summary.skipped.append(Skipped(entry=entry.entry.encode(errors="replace").decode(), reason=entry.reason))
        elif only and (entry.language or language) != only:
            summary.skipped.append(Skipped(entry=_printable(entry.audio), reason="in another language"))
        elif labels and entry.label not in labels:
            summary.unmapped[entry.label] += 1
        else:
            try:
                sound = recordings.examine(entry.audio, AudioConfig().sample_rate, longest)
                if bytes.fromhex(sound.digest) in seen:
                    raise AudioError(f"{entry.audio}: the same bytes as another file; duplicates are skipped")
                line = _line(entry, folder, labels.get(entry.label, entry.label), entry.language or language, sound)
            except (AudioError, espeak.EspeakError, OSError) as error:
                summary.skipped.append(Skipped(entry=_printable(entry.audio), reason=_reason(error, entry)))
            else:
                seen.add(bytes.fromhex(sound.digest))
                checksum.update(sound.digest.encode())
                summary.utterances[entry.label] += 1
                summary.seconds[entry.label] += sound.seconds
                summary.speakers[entry.label].add(entry.speaker)
                summary.energy[entry.speaker] += sound.power * sound.seconds
                summary.spoken[entry.speaker] += sound.seconds
                summary.without_text += not entry.text
                yield line
        report(summary)
    summary.checksum = checksum.hexdigest()[:32]


def _line(entry: Recording, folder: Path, emotion: str, language: str, sound: recordings.Sound) -> dict[str, object]:
    """Return one manifest line. Raises EspeakError if the text has no phones."""
    if not language:
        raise ManifestError(
            f"{entry.audio}: the corpus does not give the language; set --language, for example to en, de or cmn"
        )
    phones = _phones(entry.text, language) if entry.text else (NO_PHONE,)
    audio = entry.audio.resolve()
    return {
        "audio": str(audio.relative_to(folder) if audio.is_relative_to(folder) else audio),
        "text": entry.text or NO_TEXT,
        "phones": list(phones),
        "speaker": entry.speaker,
        "language": language,
        "emotion": emotion,
        "sha256": sound.digest,
    }


@lru_cache(maxsize=4096)
def _phones(text: str, language: str) -> tuple[str, ...]:
    """Return espeak-ng's phones, cached because many corpora repeat a few sentences."""
    return espeak.phones([text], language)[0]


def _convert(manifest: Path, folder: Path, summary: Summary, loudness: float) -> None:
    """Write copies to ``summary.copies`` with the mean level ``loudness`` per speaker, and name them in ``manifest``."""
    copies, rate = summary.copies, AudioConfig().sample_rate
    assert copies is not None
    copies.mkdir(exist_ok=True)
    converted = manifest.with_name(f"{manifest.name}.converted")
    with manifest.open(encoding="utf-8") as lines, converted.open("w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            speaker = row["speaker"]
            level = 10 * math.log10(summary.energy[speaker] / summary.spoken[speaker])
            gain = round(loudness - level, 2)
            copy = copies / f"{row['sha256']}{gain:+.2f}dB.wav"
            if not copy.is_file():
                wave = load_wave(folder / row["audio"], rate).numpy() * 10 ** (gain / 20)
                partial = copy.with_name(f".{copy.name}.{os.getpid()}.wav")
                soundfile.write(partial, wave, rate, subtype="FLOAT")
                os.replace(partial, copy)
            out.write(json.dumps(row | {"audio": f"{copies.name}/{copy.name}"}, ensure_ascii=False) + "\n")
    os.replace(converted, manifest)


def _printable(path: Path) -> str:
    """Return the path with replacement characters for bytes that are not UTF-8."""
    return str(path).encode(errors="replace").decode()


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


def _write_splits(partial: Path, out: Path, splits_of: Mapping[str, Sequence[str]], summary: Summary) -> None:
    """Write each line to the manifests that ``splits_of`` gives for its speaker."""
    names = sorted(set().union(*splits_of.values()))
    files = {name: partial.with_name(f"{partial.name}.{name}").open("w", encoding="utf-8") for name in names}
    try:
        with partial.open(encoding="utf-8") as lines:
            for line in lines:
                for name in splits_of[json.loads(line)["speaker"]]:
                    files[name].write(line)
                    path = split_path(out, name)
                    summary.written[path] = summary.written.get(path, 0) + 1
    finally:
        for file in files.values():
            file.close()
    for name, file in files.items():
        os.replace(file.name, split_path(out, name))

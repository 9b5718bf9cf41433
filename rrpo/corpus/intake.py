"""Check a user's corpus before anything is computed: every line, every audio file, and the content hash."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path

from rrpo.audio import AudioError, load_wave
from rrpo.corpus.config import AudioConfig, ManifestConfig
from rrpo.corpus.manifest import ManifestError, Utterance
from rrpo.corpus.processes import MANY, in_order, usable_cpus
from rrpo.corpus.tags import NEUTRAL, NO_EMOTION, NO_SPEAKER

BATCH = 100
"""Utterances that a process decodes per batch."""


def check_manifest(
    path: Path,
    utterances: Iterable[Utterance],
    audio: AudioConfig | None,
    *,
    tell: Callable[[int, float], None] = lambda utterances, seconds: None,
) -> ManifestConfig:
    """Check a manifest and return it as a config keyed by its content.

    Moving the files keeps the key; editing one changes it. From `MANY` recordings on, several processes decode them, and the
    result is cached in the user's cache folder until a line, or the size or modification time of a file, changes.

    Args:
        path: Path of the manifest.
        utterances: Its lines; iterated over twice.
        audio: None for prompts, which have no audio.
        tell: Called with the number of utterances checked so far and the seconds elapsed; the last call is on all of them.

    Raises:
        ManifestError: The audio of an utterance is missing, unreadable, empty, silent, not finite or sampled at too low a rate.
    """
    start = time.monotonic()
    count, cache = _locate(utterances, audio)
    digest = _cached(cache)
    if not digest:
        check = partial(_check_audio, where=str(path), sample_rate=None if audio is None else audio.sample_rate)
        lines = iter(utterances)
        batches = iter(lambda: list(islice(lines, BATCH)), [])
        checked = in_order(check, batches, 1 if cache is None else usable_cpus())
        digest = _digest(
            _counting(chain.from_iterable(checked), lambda done: tell(done, time.monotonic() - start)), audio
        )
        if cache is not None:
            _write_cache(cache, digest)
    tell(count, time.monotonic() - start)
    return ManifestConfig(digest=digest, path=str(path.resolve()))


def _counting(utterances: Iterable[Utterance], tell: Callable[[int], None]) -> Iterator[Utterance]:
    """Yield utterances, and tell their number so far after every `BATCH`."""
    for number, utterance in enumerate(utterances, 1):
        yield utterance
        if number % BATCH == 0:
            tell(number)


def require_unchanged(manifest: ManifestConfig, utterances: Iterable[Utterance], audio: AudioConfig | None) -> None:
    """Raise ManifestError if the content of a manifest is no longer what the keys of stages contain. Nothing is decoded."""
    _, cache = _locate(utterances, audio)
    if (_cached(cache) or _digest(utterances, audio)) != manifest.digest:
        raise ManifestError(
            f"{manifest.path}: a line or a recording was edited after the run was planned; restore it, or give the command "
            "again, which plans with the new content"
        )


def _cached(cache: Path | None) -> str:
    """Return the hash in a cache file; empty if there is none."""
    return cache.read_text() if cache is not None and cache.is_file() else ""


def _digest(utterances: Iterable[Utterance], audio: AudioConfig | None) -> str:
    """Return the hash of utterances and their recordings."""
    content = hashlib.sha256()
    for utterance in utterances:
        content.update(repr((utterance.id, utterance.text, utterance.phones, utterance.speaker)).encode())
        content.update(repr((utterance.language, utterance.emotion, utterance.votes, utterance.spec)).encode())
        if audio is not None and utterance.audio is not None:
            try:
                content.update(Path(utterance.audio).read_bytes())
            except OSError as error:
                raise ManifestError(f"utterance {utterance.id!r} of split {utterance.split!r}: {error}") from error
    return content.hexdigest()[:32]


def _check_audio(utterances: list[Utterance], where: str, sample_rate: int | None) -> list[Utterance]:
    """Decode the audio of all utterances and return them. Raises `ManifestError` if a file cannot be used."""
    for utterance in utterances:
        if sample_rate is not None and utterance.audio is not None:
            try:
                load_wave(utterance.audio, sample_rate)
            except AudioError as error:
                raise ManifestError(f"{where}, utterance {utterance.id!r}: {error}") from error
    return utterances


def _locate(utterances: Iterable[Utterance], audio: AudioConfig | None) -> tuple[int, Path | None]:
    """Return the number of utterances and the cache file of their digest; None if there are fewer than `MANY` recordings."""
    key, count, recordings = hashlib.sha256(repr(audio).encode()), 0, 0
    for utterance in utterances:
        count += 1
        place = utterance.audio and os.path.abspath(utterance.audio)  # planned and built from different folders
        key.update(repr(vars(utterance) | {"audio": place}).encode())
        if audio is not None and utterance.audio is not None:
            try:
                stat = os.stat(utterance.audio)
            except OSError:
                continue
            recordings += 1
            key.update(repr((stat.st_size, stat.st_mtime_ns)).encode())
    if recordings < MANY:
        return count, None
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rrpo" / "manifests"
    except RuntimeError:  # the user has no home
        return count, None
    return count, cache / key.hexdigest()


def _write_cache(path: Path, digest: str) -> None:
    """Cache a digest; ignore errors, because the cache is optional."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_file = path.with_name(f"{path.name}.{os.getpid()}")
        partial_file.write_text(digest)
        os.replace(partial_file, path)


def check_apart(manifests: Mapping[str, Iterable[Utterance]], trained_on: Callable[[str], str]) -> None:
    """Raise `ManifestError` if two splits share a sound (the same bytes) and ``trained_on`` names different models for them."""
    if len({trained_on(name) for name in manifests}) < 2:
        return  # one model only: skip reading the audio
    origins: dict[bytes, tuple[str, str]] = {}
    for name, utterances in manifests.items():
        for utterance in utterances:
            sound = repr(utterance.spec).encode() if utterance.audio is None else Path(utterance.audio).read_bytes()
            first_name, first_id = origins.setdefault(hashlib.sha256(sound).digest(), (name, utterance.id))
            if trained_on(first_name) != trained_on(name):
                raise ManifestError(
                    f"utterance {utterance.id!r} of the split {name!r} ({trained_on(name)}) sounds the same, byte for byte, as "
                    f"{first_id!r} of {first_name!r} ({trained_on(first_name)}); leave it out of one of them"
                )


def classes(
    manifests: Mapping[str, Iterable[Utterance]], known: Sequence[str], trained: Collection[str]
) -> tuple[str, ...]:
    """Return the emotions of the manifests: those ``known`` to the renderer in its order, then the others by name.

    Empty if all are known: the classes are then the renderer's, and manifests can be combined with rendered splits. Raises
    `ManifestError` if a speaker has the name of an emotion, because the policy has one tag for each name, and if a split has an
    emotion that is missing from a split in ``trained``, which reward models are trained on.
    """
    counts = {
        name: Counter(emotion for u in manifest for emotion in (u.emotion, *(u.votes or ())))
        for name, manifest in manifests.items()
    }
    emotions = set().union(*counts.values())
    for name, manifest in manifests.items():
        if both := sorted({u.speaker for u in manifest} & {*emotions, *known, NO_EMOTION, NO_SPEAKER, NEUTRAL}):
            raise ManifestError(
                f"the split {name!r} has a speaker with the name of an emotion or of a tag, {both[0]!r}; rename the speaker"
            )
    if emotions <= set(known):
        return ()
    for name in (name for name in trained if name in counts):
        for other, count in counts.items():
            if missing := sorted(count.keys() - counts[name].keys()):
                raise ManifestError(
                    f"the emotion {missing[0]!r} is in the split {other!r} ({count[missing[0]]} of {count.total()} labels) and "
                    f"not in {name!r}, which a reward model is trained on; correct the label, or add utterances of it to {name}"
                )
    return (*(emotion for emotion in known if emotion in emotions), *sorted(emotions.difference(known)))


def check_speakable(name: str, prompts: Iterable[Utterance], training: Iterable[Utterance]) -> None:
    """Raise `ManifestError` if the split ``name`` has a speaker, emotion or phone that is not in the policy's data
    ``training``."""

    def symbols(utterances: Iterable[Utterance]) -> set[tuple[str, str]]:
        named = (
            (("speaker", u.speaker), ("emotion", u.emotion), *(("phone", p) for p in u.phones)) for u in utterances
        )
        return set(chain.from_iterable(named))

    trained = symbols(training)
    if unknown := sorted(symbols(prompts) - trained):
        kind, symbol = unknown[0]
        choices = ", ".join(sorted(value for other, value in trained if other == kind))
        raise ManifestError(
            f"the split {name!r} has the {kind} {symbol!r}, which the policy never learns; it knows {choices}: use these, or "
            "give the splits base and sft_heldout with it"
        )

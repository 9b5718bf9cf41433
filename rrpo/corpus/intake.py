"""A user's own corpus, checked as a whole before anything is computed: every line, every audio file, and their identity."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from rrpo.audio import AudioError, load_wave
from rrpo.corpus.config import AudioConfig, ManifestConfig
from rrpo.corpus.manifest import ManifestError, Utterance


def check_manifest(path: Path, utterances: Iterable[Utterance], audio: AudioConfig | None) -> ManifestConfig:
    """The manifest that was read from ``path``, as a config keyed by its content.

    Moving the files changes nothing, editing one changes every key. ``audio`` is None for prompts, which have none. Raises
    `ManifestError` at the first utterance whose audio is missing, unreadable, empty, silent, not finite or sampled too low.
    """
    digest = hashlib.sha256()
    for utterance in utterances:
        digest.update(repr((utterance.id, utterance.text, utterance.phones, utterance.speaker)).encode())
        digest.update(repr((utterance.language, utterance.emotion, utterance.votes, utterance.spec)).encode())
        if audio is not None and utterance.audio is not None:
            try:
                load_wave(utterance.audio, audio.sample_rate)
            except AudioError as error:
                raise ManifestError(f"{path}, utterance {utterance.id!r}: {error}") from error
            digest.update(Path(utterance.audio).read_bytes())
    return ManifestConfig(digest=digest.hexdigest()[:32], path=str(path.resolve()))


def check_apart(manifests: Mapping[str, Iterable[Utterance]], heard_by: Callable[[str], str]) -> None:
    """Raises `ManifestError` where a sound (the same bytes) is in two splits that different ones learn from, by ``heard_by``."""
    if len({heard_by(name) for name in manifests}) < 2:
        return  # no two to share anything, so no sound is read
    first: dict[bytes, tuple[str, str]] = {}
    for name, utterances in manifests.items():
        for utterance in utterances:
            sound = repr(utterance.spec).encode() if utterance.audio is None else Path(utterance.audio).read_bytes()
            before, twin = first.setdefault(hashlib.sha256(sound).digest(), (name, utterance.id))
            if heard_by(before) != heard_by(name):
                raise ManifestError(
                    f"utterance {utterance.id!r} of the split {name!r} ({heard_by(name)}) sounds the same, byte for byte, as "
                    f"{twin!r} of {before!r} ({heard_by(before)}); leave it out of one of them"
                )


def classes(
    manifests: Mapping[str, Iterable[Utterance]], known: Sequence[str], trained: Collection[str]
) -> tuple[str, ...]:
    """The emotions that the manifests bring: those ``known`` to the renderer in their order, then the others by name.

    Empty where all are known: then the classes are the renderer's, and manifests and rendered splits go together. Raises
    `ManifestError` where a split has an emotion that one of ``trained`` lacks, from which a reward model learns.
    """
    counts = {
        name: Counter(emotion for u in manifest for emotion in (u.emotion, *(u.votes or ())))
        for name, manifest in manifests.items()
    }
    there = set().union(*counts.values())
    if there <= set(known):
        return ()
    for name in (name for name in trained if name in counts):
        for other, found in counts.items():
            if alone := sorted(found.keys() - counts[name].keys()):
                raise ManifestError(
                    f"the emotion {alone[0]!r} is in the split {other!r} ({found[alone[0]]} of {found.total()} labels) and not "
                    f"in {name!r}, from which a reward model learns; correct the label, or add utterances of it to {name}"
                )
    return (*(emotion for emotion in known if emotion in there), *sorted(there.difference(known)))


def check_speakable(name: str, asked: Iterable[Utterance], learnt: Iterable[Utterance]) -> None:
    """Raises `ManifestError` where the split ``name`` asks the policy for a speaker, emotion or phone that it never learnt."""

    def symbols(utterances: Iterable[Utterance]) -> set[tuple[str, str]]:
        return {
            (kind, symbol)
            for u in utterances
            for kind, held in (("speaker", (u.speaker,)), ("emotion", (u.emotion,)), ("phone", u.phones))
            for symbol in held
        }

    known = symbols(learnt)
    if unknown := sorted(symbols(asked) - known):
        kind, symbol = unknown[0]
        there = ", ".join(sorted(one for other, one in known if other == kind))
        raise ManifestError(
            f"the split {name!r} has the {kind} {symbol!r}, which the policy never learns; it knows {there}: use these, or "
            "give the splits base and sft_heldout that hold it too"
        )

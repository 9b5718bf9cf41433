"""A user's own corpus, checked as a whole before anything is computed: every line, every audio file, and their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
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
    first: dict[bytes, tuple[str, Utterance]] = {}
    for name, utterances in manifests.items():
        for utterance in utterances:
            sound = repr(utterance.spec).encode() if utterance.audio is None else Path(utterance.audio).read_bytes()
            before, twin = first.setdefault(hashlib.sha256(sound).digest(), (name, utterance))
            if heard_by(before) != heard_by(name):
                raise ManifestError(
                    f"utterance {utterance.id!r} of the split {name!r} ({heard_by(name)}) sounds the same, byte for byte, as "
                    f"{twin.id!r} of {before!r} ({heard_by(before)}); leave it out of one of them"
                )


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

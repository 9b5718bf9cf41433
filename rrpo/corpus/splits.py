"""Draw splits from a world: pure functions of (world, split), with the same result in any process.

Each attribute has its own random stream, keyed by (world seed, attribute, split name, split seed): changing the shortcut, the
artefact rate or the raters does not change texts, speakers, emotions or cues. Raters judge the cues only: an artefact does not
change votes.
"""

from __future__ import annotations

from math import inf

import numpy as np

from rrpo.corpus import espeak
from rrpo.corpus.config import ARTEFACTS, EMOTIONS, SplitConfig, WorldConfig
from rrpo.corpus.draws import balanced, generator, key
from rrpo.corpus.emotions import draw_cues, draw_votes, ideal_observer, majority
from rrpo.corpus.manifest import Utterance, read_manifest
from rrpo.corpus.render import RenderSpec
from rrpo.corpus.speakers import Speaker, group_speakers
from rrpo.corpus.texts import draw_texts

Keys = tuple[str | int, ...]
"""Key of a split's random streams, in addition to the world's seed and the attribute."""


def draw_split(world: WorldConfig, split: SplitConfig) -> list[Utterance]:
    """Draw the utterances of ``split``, balanced over emotions, and over speakers within each emotion.

    With ``split.manifest``, return the manifest's utterances in its order. Raises `ManifestError` if one cannot be used, and
    `ValueError` if the speaker group or text pool is unknown or a probability is outside [0, 1].
    """
    _check(split)
    if split.manifest is not None:
        return read_manifest(split.manifest.path, classes(world, split), split.name)
    keys: Keys = (split.name, split.seed)
    speakers = group_speakers(world, split.speakers)[: split.voices]
    true, voices, texts, phones = draw_content(world, split.size, speakers, split.texts, keys)
    true = _other_emotions(world, true, keys) if split.parallel else true
    languages = [voice.language for voice in voices]
    cues, _ = draw_cues(world.emotions, true, languages, world.cue_spread, generator(world.seed, "cues", *keys))
    votes = _votes(world, split, cues, languages, keys)
    labels = _requested(world, split, true, keys) if votes is None else majority(votes)
    artefacts = _artefacts(world, split, true, keys)
    return [
        Utterance(
            id=f"{split.name}-{split.seed}-{i:05d}",
            text=texts[i],
            phones=phones[i],
            speaker=voices[i].id,
            language=languages[i],
            emotion=world.emotions[labels[i]],
            true_emotion=world.emotions[true[i]],
            votes=None if votes is None else tuple(world.emotions[vote] for vote in votes[i]),
            split=split.name,
            spec=RenderSpec(
                text=texts[i],
                speaker=voices[i],
                cues=tuple(float(cue) for cue in cues[i]),
                seed=key(world.seed, "render", *keys, i),
                artefact=artefacts[i],
            ),
            artefact=artefacts[i],
        )
        for i in range(split.size)
    ]


def classes(world: WorldConfig, split: SplitConfig) -> tuple[str, ...]:
    """Return the emotions of ``split``: those of its manifest if it defines any, otherwise the renderer's."""
    return (split.manifest and split.manifest.emotions) or world.emotions


def draw_content(
    world: WorldConfig, n: int, table: list[Speaker], pool: str, keys: Keys
) -> tuple[np.ndarray, list[Speaker], list[str], list[tuple[str, ...]]]:
    """Draw balanced emotions ``[n]``, speakers from ``table``, texts and their phones."""
    emotions = balanced(n, len(world.emotions), world.seed, "emotion", *keys)
    rng = generator(world.seed, "speaker", *keys)
    permutation = rng.permutation(len(table))
    order = np.lexsort((rng.random(n), emotions))  # sorted by class, shuffled within each class
    indices = np.empty(n, dtype=int)
    indices[order] = permutation[np.arange(n) % len(table)]
    speakers = [table[voice] for voice in indices]
    texts, phones = [""] * n, [()] * n  # type: tuple[list[str], list[tuple[str, ...]]]
    for language in sorted({speaker.language for speaker in speakers}):
        rows = [i for i, speaker in enumerate(speakers) if speaker.language == language]
        sentences = draw_texts(len(rows), pool, language, world.seed, *keys)
        for i, text, sequence in zip(rows, sentences, espeak.phones(sentences, language), strict=True):
            texts[i], phones[i] = text, sequence
    return emotions, speakers, texts, phones


def _votes(
    world: WorldConfig, split: SplitConfig, cues: np.ndarray, languages: list[str], keys: Keys
) -> np.ndarray | None:
    """Draw votes ``[n, raters]``; None without raters. Each rater samples p(emotion | cues)^(1 / (1 + rater_noise)),
    renormalized."""
    if split.raters == 0:
        return None
    posterior = np.concatenate(
        [
            ideal_observer(z, world.emotions, language, world.cue_spread, 1 + split.rater_noise)
            for z, language in zip(cues, languages, strict=True)
        ]
    )
    return draw_votes(posterior, split.raters, generator(world.seed, "votes", *keys))


def _other_emotions(world: WorldConfig, true: np.ndarray, keys: Keys) -> np.ndarray:
    """Draw a different emotion for each of ``true [n]``."""
    classes = len(world.emotions)
    return (true + generator(world.seed, "parallel", *keys).integers(1, classes, size=len(true))) % classes


def _requested(world: WorldConfig, split: SplitConfig, true: np.ndarray, keys: Keys) -> np.ndarray:
    """Draw the requested emotions: the acted one, or with probability ``misacted`` any other."""
    rng, classes = generator(world.seed, "misacted", *keys), len(world.emotions)
    replacements = (true + rng.integers(1, classes, size=len(true))) % classes
    return np.where(rng.random(len(true)) < split.misacted, replacements, true)


def _artefacts(world: WorldConfig, split: SplitConfig, true: np.ndarray, keys: Keys) -> list[str | None]:
    """Draw artefacts: with probability ``shortcut`` that of the utterance's emotion, otherwise any with ``artefact_rate``."""
    shortcut_draws, artefact_draws = generator(world.seed, "artefact", *keys).random((len(true), 2)).T
    kinds = generator(world.seed, "artefact kind", *keys).integers(len(ARTEFACTS), size=len(true))
    shortcuts = dict(zip(EMOTIONS, ARTEFACTS, strict=True))
    artefacts: list[str | None] = []
    for i, label in enumerate(true):
        shortcut = shortcuts.get(world.emotions[label])
        if shortcut is not None and shortcut_draws[i] < split.shortcut:
            artefacts.append(shortcut)
        else:
            artefacts.append(ARTEFACTS[kinds[i]] if artefact_draws[i] < split.artefact_rate else None)
    return artefacts


def _check(split: SplitConfig) -> None:
    if split.raters and split.misacted:
        raise ValueError("SplitConfig.misacted and raters both define the label; set one of them to 0")
    limits = {"artefact_rate": (0, 1), "shortcut": (0, 1), "misacted": (0, 1), "voices": (1, inf)}
    for name, (low, high) in (limits | dict.fromkeys(("size", "raters", "rater_noise"), (0, inf))).items():
        value = getattr(split, name)
        if value is not None and not low <= value <= high:
            fix = "a probability, a number in [0, 1]" if high == 1 else f"{low} or more"
            raise ValueError(f"SplitConfig.{name} is {value}; give {fix}")

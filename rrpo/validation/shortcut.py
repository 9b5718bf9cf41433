"""Did the pre-trained reward model learn the planted shortcut, and only if one was planted?

The same utterances are rendered twice: with artefacts that match their emotion, and with random ones. Everything else is equal,
so the difference in accuracy is paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.corpus.config import ARTEFACTS, EMOTIONS
from rrpo.corpus.draws import generator
from rrpo.corpus.features import SpeechSet
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.validation.config import SectionConfig
from rrpo.validation.hearing import labels, planted, predict_log_probs
from rrpo.validation.lines import Line, mean


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the section *Shortcut*."""
    clean = SpeechSet.load(inputs["clean"])
    utterances = clean.utterances[: config.card.paired]
    truth = labels(clean, clean.emotions)[: len(utterances)]
    with_emotion, any_kind = kinds([u.emotion for u in utterances], config.shortcut, config.world.seed)
    frames = [planted(utterances, artefacts, clean.audio, context.device) for artefacts in (with_emotion, any_kind)]
    for done, (role, minimum, maximum) in enumerate((("biased", 0.15, None), ("unbiased", None, 0.03))):
        model = RewardModel.load(inputs[role], context.device)
        before, after = (predict_log_probs(model, part).argmax(1) == truth for part in frames)
        strength = config.shortcut if role == "biased" else 0.0
        title = f"accuracy the pre-trained RM loses when artefacts are de-correlated, shortcut {strength:g}"
        note, loss = f"{before.mean():.3f} -> {after.mean():.3f}", before.astype(float) - after
        value = mean(loss, config.card.resamples)
        yield Line("Shortcut", title, at_least=minimum, at_most=maximum, note=note, **value)
        context.report(done + 1, 2)


def kinds(emotions: list[str], share: float, seed: int) -> tuple[list[str | None], list[str | None]]:
    """Return, for each utterance with probability ``share``, its emotion's artefact, and a random artefact for the same
    utterances."""
    rng = generator(seed, "card", "shortcut")
    marks = rng.random(len(emotions)) < share
    indices = rng.integers(len(ARTEFACTS), size=len(emotions))
    artefact_of = dict(zip(EMOTIONS, ARTEFACTS, strict=True))
    with_emotion = [artefact_of.get(emotion) if mark else None for emotion, mark in zip(emotions, marks, strict=True)]
    any_kind = [ARTEFACTS[kind] if mark else None for kind, mark in zip(indices, marks, strict=True)]
    return with_emotion, any_kind

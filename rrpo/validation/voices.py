"""Unseen synthesisers: do the judges and the reward model recognize the same cues in other voices?

English by espeak-ng, Piper and Kokoro, modified to cues from the same model of emotion. The judges and the reward model were
trained on another language, so espeak-ng's English speakers are the baseline for the others. An external English recogniser is
evaluated too. These values are reported without thresholds, because nothing was trained for this domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rrpo.audio import resampled
from rrpo.corpus.emotions import ideal_observer
from rrpo.corpus.features import SpeechSet, wave_of
from rrpo.corpus.second import CUES
from rrpo.judges import words
from rrpo.judges.emotion import Judge
from rrpo.judges.phonetic_judge import PhoneticJudge
from rrpo.judges.protocol import TrainedJudge
from rrpo.judges.spoken import waves_of
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.training.data import TrainingFrames
from rrpo.validation.config import SectionConfig
from rrpo.validation.hearing import ideal_hits, labels, one_batch, predict_log_probs, renditions
from rrpo.validation.lines import NOT_INSTALLED, Line, ratio, share

SECTION = "Other synthesisers"
TITLES = {"espeak": "espeak-ng, English", "piper": "Piper", "kokoro": "Kokoro"}


@dataclass(frozen=True)
class Domain:
    """Utterances of one synthesiser."""

    speech: SpeechSet
    ideal: np.ndarray
    """``[n]`` whether the ideal observer of the cues is right."""
    groups: np.ndarray
    """``[n]`` group of each utterance for resampling: one utterance modified to every emotion."""


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the section *Other synthesisers*; write ``voices.csv``, accuracy by synthesiser, listener and emotion."""
    domain_of = domains(config, inputs)
    listeners: dict[str, TrainedJudge | RewardModel] = {
        "test": Judge.load(inputs["test"], context.device),
        "val": Judge.load(inputs["val"], context.device),
        "pre-trained RM": RewardModel.load(inputs["biased"], context.device),
    }
    if "third" in inputs:
        listeners["third"] = PhoneticJudge.load(inputs["third"])
    table = []
    for done, (name, title) in enumerate(TITLES.items()):
        if name not in domain_of:
            yield Line(SECTION, f"{title}: judges and RM", note=NOT_INSTALLED)
            continue
        domain = domain_of[name]
        truth = labels(domain.speech, domain.speech.emotions)
        frames = TrainingFrames(domain.speech, None, context.device).originals
        yield Line(SECTION, f"{title}: ideal observer", **share(domain.ideal))
        for label, listener in listeners.items():
            correct = predict_log_probs(listener, frames).argmax(1) == truth
            note = f"accuracy {correct.mean():.3f}, n = {len(correct)}"
            value = ratio(*_by_group(domain.groups, correct, domain.ideal), config.card.resamples)
            yield Line(SECTION, f"{title}: {label} / ideal observer", note=note, **value)
            accuracies = (
                (emotion, float(correct[truth == k].mean())) for k, emotion in enumerate(domain.speech.emotions)
            )
            table += [(name, label, emotion, accuracy) for emotion, accuracy in accuracies]
        context.report(done + 1, len(TITLES))
    columns = ["synthesiser", "listener", "emotion", "accuracy"]
    pd.DataFrame(table, columns=columns).to_csv(out / "voices.csv", index=False)
    yield from transcription(config, domain_of, Codec.load(inputs["codec"], context.device))


def domains(config: SectionConfig, inputs: Mapping[str, Path]) -> dict[str, Domain]:
    """Return the available sets by synthesiser."""
    domains = {}
    if "english" in inputs:
        speech = SpeechSet.load(inputs["english"])
        domains["espeak"] = Domain(speech, ideal_hits(speech, config.world.cue_spread), np.arange(len(speech)))
    for role in (role for role in inputs if role.startswith("voices_")):
        speech = SpeechSet.load(inputs[role])
        cues = np.load(inputs[role] / CUES)
        language = speech.utterances[0].language
        posterior = ideal_observer(cues, speech.emotions, language, config.world.cue_spread)
        ideal = posterior.argmax(1) == labels(speech, speech.emotions)
        readings = np.array([utterance.id.rpartition("-")[0] for utterance in speech.utterances])
        groups = np.unique(readings, return_inverse=True)[1]
        domains[role.removeprefix("voices_")] = Domain(speech, ideal, groups)
    return domains


def _by_group(groups: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of two arrays ``values [n]`` over ``groups [n]``."""
    first, second = (np.bincount(groups, weights=value.astype(float)) for value in values)
    return first, second


def transcription(config: SectionConfig, domains: Mapping[str, Domain], codec: Codec) -> Iterator[Line]:
    """Return Whisper's word error rates: each synthesiser's, and espeak-ng's after codec and vocoder."""
    if not words.available():
        yield Line(SECTION, "Whisper tiny.en: word error rate", note=NOT_INSTALLED)
        return
    rate = codec.audio.sample_rate
    for name, domain in domains.items():
        n, size = config.card.transcribed, len(domain.speech)
        rows = np.arange(size)[:: max(1, size // n)][:n]  # spread over all utterances in the set
        utterances = [domain.speech.utterances[i] for i in rows]
        renders = {TITLES[name]: [wave_of(utterance, rate).numpy() for utterance in utterances]}
        if name == "espeak":
            _, resynthesized = renditions(domain.speech, codec, str(codec.mean.device))
            F, lengths = one_batch(resynthesized)
            renders[f"{TITLES[name]}, through the codec"] = waves_of(F[rows], lengths[rows], codec.audio)
        for title, waves in renders.items():
            clips = [resampled(wave, rate, words.RATE) for wave in waves]
            errors = words.word_errors(clips, [utterance.text for utterance in utterances])
            value = ratio(errors[:, 0], errors[:, 1], config.card.resamples)
            yield Line(SECTION, f"{title}: Whisper tiny.en, word error rate", **value)

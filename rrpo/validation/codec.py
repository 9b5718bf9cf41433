"""Recognisers and codec: phone error rates on random words, losses by re-synthesis, artefacts that survive it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from rrpo.corpus.config import ARTEFACTS
from rrpo.corpus.features import SpeechSet
from rrpo.judges.artefacts import detect
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.training.data import Frames
from rrpo.validation.config import SectionConfig
from rrpo.validation.hearing import (
    common,
    labels,
    one_batch,
    phone_errors,
    planted,
    predict_log_probs,
    renditions,
    resynthesised,
)
from rrpo.validation.lines import Line, mean, ratio, share


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the sections *Recognisers* and *Codec*."""
    device, resamples = context.device, config.card.resamples
    codec = Codec.load(inputs["codec"], device)
    words = SpeechSet.load(inputs["words"])
    training = {role: SpeechSet.load(inputs[f"words_{role}"]) for role in ("reward", "judge")}
    training_texts = {u.text for speech in training.values() for u in speech.utterances}
    unseen = np.array([u.text not in training_texts for u in words.utterances])
    references = [u.phones for u in words.utterances]
    size = np.array([len(phones) for phones in references])
    original, resynthesized = renditions(words, codec, device)
    for role in ("reward", "judge"):
        recogniser = Recogniser.load(inputs[f"recogniser_{role}"], device)
        errors, errors_after = (phone_errors(recogniser, frames, references) for frames in (original, resynthesized))
        title, note = f"phone error rate on random words, {role}'s", f"n = {unseen.sum()} unseen texts"
        rate = ratio(errors[unseen], size[unseen], resamples)
        yield Line("Recognisers", title, at_most=0.10, note=note, **rate)
    shared, texts = common(training["reward"], training["judge"])
    title, note = "utterances that the two recognisers share", f"{texts} texts are in both"
    yield Line("Recognisers", title, float(shared), at_most=0, note=note)
    context.report(1, 3)
    rise = ratio((errors_after - errors)[unseen], size[unseen], resamples)
    yield Line("Codec", "rise of the phone error rate by re-synthesis (judge's)", at_most=0.08, **rise)
    clean = SpeechSet.load(inputs["clean"])
    judge, truth = Judge.load(inputs["test"], device), labels(clean, clean.emotions)
    clean_renditions = renditions(clean, codec, device)
    correct, after_codec = (predict_log_probs(judge, frames).argmax(1) == truth for frames in clean_renditions)
    losses = correct.astype(float) - after_codec
    yield Line("Codec", "emotion accuracy lost by re-synthesis (test)", at_most=0.07, **mean(losses, resamples))
    perplexity = json.loads((inputs["codec"] / "scalars.json").read_text())["codec_perplexity"]
    yield Line("Codec", "codebook perplexity", perplexity, note=f"of {codec.vocabulary} codes")
    context.report(2, 3)
    yield from survival(config, clean, clean_renditions[1], codec)
    context.report(3, 3)


def survival(config: SectionConfig, clean: SpeechSet, resynthesized: Frames, codec: Codec) -> Iterator[Line]:
    """Measure the recall of each planted artefact's detector after the codec, and its false alarms on ``resynthesized``
    clean speech."""
    utterances = clean.utterances[: config.card.planted]
    speakers = codec.speaker_index([u.speaker for u in utterances])
    emotions = np.array([u.emotion for u in clean.utterances])
    alarms = {kind: flags.cpu().numpy() for kind, flags in detect(*one_batch(resynthesized), clean.audio).items()}
    for kind in ARTEFACTS:
        frames = planted(utterances, [kind] * len(utterances), clean.audio, codec.mean.device)
        hits = detect(*one_batch(resynthesised(frames, speakers, codec)), clean.audio)[kind].cpu().numpy()
        yield Line("Codec", f"planted {kind} found after the codec (recall)", at_least=0.8, **share(hits))
    for kind in ARTEFACTS:
        most_alarmed = max(clean.emotions, key=lambda emotion: alarms[kind][emotions == emotion].mean())
        note = f"most in {most_alarmed}: {alarms[kind][emotions == most_alarmed].mean():.3f}"
        yield Line("Codec", f"{kind} heard in clean speech after the codec", note=note, **share(alarms[kind]))

"""Helpers shared by several sections: rendering with other artefacts, re-synthesis, and batched predictions of judges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rrpo.audio import log_mel
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.emotions import ideal_observer
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.render import render
from rrpo.judges.emotion import Judge
from rrpo.judges.metrics import edit_distance
from rrpo.judges.recogniser import Recogniser
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.training.data import Frames, TrainingFrames

CHUNK = 64
"""Utterances per batch."""


def planted(
    utterances: Sequence[Utterance], kinds: Iterable[str | None], audio: AudioConfig, device: str | torch.device
) -> Frames:
    """Render the utterances again, each with the artefact given by ``kinds``; everything else is unchanged."""
    waves = [
        torch.from_numpy(render(replace(utterance.spec, artefact=kind), audio.sample_rate))
        for utterance, kind in zip(utterances, kinds, strict=True)
        if utterance.spec is not None
    ]
    return analysed(waves, audio, device)


def analysed(waves: Sequence[Tensor], audio: AudioConfig, device: str | torch.device) -> Frames:
    """Return frames F of waves ``[S]``."""
    found: list[Tensor] = []
    for start in range(0, len(waves), CHUNK):
        part = waves[start : start + CHUNK]
        lengths = torch.tensor([len(wave) for wave in part])
        F, frames = log_mel(torch.nn.utils.rnn.pad_sequence(list(part), batch_first=True), lengths, audio)
        found += [f[:n].to(device) for f, n in zip(F, frames.tolist(), strict=True)]
    return Frames(found, audio.floor)


def common(one: SpeechSet, other: SpeechSet) -> tuple[int, int]:
    """Return the number of utterances that two sets share (same rendering seed or audio file), and the number of shared texts."""
    sounds = [{u.spec.seed if u.spec else u.audio for u in part.utterances} for part in (one, other)]
    texts = [{u.text for u in part.utterances} for part in (one, other)]
    return len(sounds[0] & sounds[1]), len(texts[0] & texts[1])


def everything(frames: Frames) -> tuple[Tensor, Tensor]:
    """Return all of ``frames`` as one batch: ``F [n, T, M], lengths [n]``."""
    return frames.batch(torch.arange(len(frames.lengths), device=frames.flat.device))


def renditions(speech: SpeechSet, codec: Codec, device: str) -> tuple[Frames, Frames]:
    """Return a set as analyzed, and as re-synthesized by the codec."""
    frames = TrainingFrames(speech, codec, device)
    n = len(speech)
    again = frames.both
    parts = (again.flat[again.starts[i] : again.starts[i] + again.lengths[i]] for i in range(n, 2 * n))
    return frames.originals, Frames(parts, speech.audio.floor)


def resynthesised(frames: Frames, speakers: Tensor, codec: Codec) -> Frames:
    """Re-synthesize ``frames`` of ``speakers [n]`` with the codec."""
    found: list[Tensor] = []
    for rows in torch.arange(len(frames.lengths), device=speakers.device).split(CHUNK):
        F, lengths = codec.resynthesise(*frames.batch(rows), speakers[rows])
        found += [f[:n] for f, n in zip(F, lengths.tolist(), strict=True)]
    return Frames(found, codec.audio.floor)


@torch.no_grad()
def heard(judge: Judge | RewardModel, frames: Frames) -> np.ndarray:
    """Return log-probabilities ``[n, K]`` by a judge or reward model."""
    parts = []
    for rows in torch.arange(len(frames.lengths), device=frames.flat.device).split(CHUNK):
        F, lengths = frames.batch(rows)
        parts.append(judge.log_probs(F, lengths).cpu().numpy())
    return np.concatenate(parts)


def phone_errors(recogniser: Recogniser, frames: Frames, references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the edit distances ``[n]`` between recognized and reference phones."""
    hypotheses: list[list[str]] = []
    for rows in torch.arange(len(frames.lengths), device=frames.flat.device).split(CHUNK):
        hypotheses += recogniser.transcribe(*frames.batch(rows))
    return np.array([edit_distance(h, r) for h, r in zip(hypotheses, references, strict=True)])


def labels(speech: SpeechSet, emotions: Sequence[str]) -> np.ndarray:
    """Return class indices ``[n]``."""
    return speech.labels(emotions).numpy()


def ideal_hits(speech: SpeechSet, spread: float) -> np.ndarray:
    """Return ``[n]`` whether the ideal observer classifies each utterance's own cues correctly."""
    posterior = [
        ideal_observer(np.array(u.spec.cues), speech.emotions, u.language, spread)[0]
        for u in speech.utterances
        if u.spec is not None
    ]
    return np.array(posterior).argmax(1) == labels(speech, speech.emotions)

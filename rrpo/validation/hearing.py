"""Helpers shared by several sections: rendering with other artefacts, re-synthesis, and batched predictions of judges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence, unpad_sequence
from torchaudio.functional import edit_distance

from rrpo.audio import log_mel
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.emotions import ideal_observer
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.prompts import Prompt
from rrpo.corpus.render import render
from rrpo.judges.protocol import TrainedJudge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.samples import Samples, decoded
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
    utterances: list[Tensor] = []
    for start in range(0, len(waves), CHUNK):
        batch = waves[start : start + CHUNK]
        lengths = torch.tensor([len(wave) for wave in batch])
        F, frames = log_mel(pad_sequence(list(batch), batch_first=True), lengths, audio)
        utterances += unpad_sequence(F.to(device), frames.to(device), batch_first=True)
    return Frames(utterances, audio.floor)


def common(speech: SpeechSet, other_speech: SpeechSet) -> tuple[int, int]:
    """Return the number of utterances that two sets share (same rendering seed or audio file), and the number of shared texts."""
    sounds = [{u.spec.seed if u.spec else u.audio for u in part.utterances} for part in (speech, other_speech)]
    texts = [{u.text for u in part.utterances} for part in (speech, other_speech)]
    return len(sounds[0] & sounds[1]), len(texts[0] & texts[1])


def one_batch(frames: Frames) -> tuple[Tensor, Tensor]:
    """Return all of ``frames`` as one batch: ``F [n, T, M], lengths [n]``."""
    return next(frames.batches(len(frames.lengths)))


def renditions(speech: SpeechSet, codec: Codec, device: str) -> tuple[Frames, Frames]:
    """Return a set as analyzed, and as re-synthesized by the codec."""
    frames = TrainingFrames(speech, codec, device)
    resynthesized = frames.both.flat.split(frames.both.lengths.tolist())[len(speech) :]
    return frames.originals, Frames(resynthesized, speech.audio.floor)


def resynthesised(frames: Frames, speakers: Tensor, codec: Codec) -> Frames:
    """Re-synthesize ``frames`` of ``speakers [n]`` with the codec."""
    utterances: list[Tensor] = []
    for batch, speaker in zip(frames.batches(CHUNK), speakers.split(CHUNK), strict=True):
        utterances += unpad_sequence(*codec.resynthesise(*batch, speaker), batch_first=True)
    return Frames(utterances, codec.audio.floor)


def decoded_frames(samples: Samples, codec: Codec, prompts: Sequence[Prompt]) -> Frames:
    """Decode samples, those without tokens to one frame."""
    F, lengths = decoded(samples, codec, prompts)
    return Frames(unpad_sequence(F, lengths.clamp(min=1), batch_first=True), codec.audio.floor)


@torch.no_grad()
def predict_log_probs(judge: TrainedJudge | RewardModel, frames: Frames) -> np.ndarray:
    """Return log-probabilities ``[n, K]`` by a judge or reward model."""
    return np.concatenate([judge.log_probs(*batch).cpu().numpy() for batch in frames.batches(CHUNK)])


def phone_errors(recogniser: Recogniser, frames: Frames, references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the edit distances ``[n]`` between recognized and reference phones."""
    hypotheses = [phones for batch in frames.batches(CHUNK) for phones in recogniser.transcribe(*batch)]
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

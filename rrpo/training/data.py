"""What the reward model trains on: utterances as analysed and as the codec gives them back, half of each.

A policy's frames come out of the codec's decoder, so a model that never saw re-synthesised frames would be judged, and
optimised against, outside its domain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rrpo import seeding
from rrpo.corpus.features import SpeechSet, WaveSet
from rrpo.masking import valid_mask
from rrpo.models.codec import Codec

CHUNK = 64
"""Utterances that the codec re-synthesises at once."""


class Frames:
    """Utterances end to end on one device, so that a padded batch is a single gather."""

    def __init__(self, utterances: Iterable[Tensor], floor: float) -> None:
        """Args:
        utterances: Frames ``[l_i, M]`` of each utterance.
        floor: Its logarithm is the padding: smallest mel power, or 1 for waveforms.
        """
        parts = list(utterances)
        self.flat = torch.cat(parts)
        self.lengths = torch.tensor([len(part) for part in parts], device=self.flat.device)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.padding = math.log(floor)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """``F [B, T, M], lengths [B]`` of ``indices [B]``, padded to the longest."""
        lengths = self.lengths[indices]
        T = int(lengths.max())
        mask = valid_mask(lengths, T)
        rows = (self.starts[indices][:, None] + torch.arange(T, device=indices.device)).clamp(max=len(self.flat) - 1)
        return self.flat[rows].masked_fill(~mask[..., None], self.padding), lengths


class TrainingFrames:
    """The utterances of one ``speech`` stage, each in two renditions: original and re-synthesised. Waveforms have but one."""

    def __init__(self, speech: SpeechSet, codec: Codec | None, device: str) -> None:
        self.size = 0 if codec is None else len(speech)
        self.device = device
        originals = [speech.mel(index).to(device) for index in range(len(speech))]
        others = [] if codec is None else _resynthesised(speech, codec, device)
        self.originals = Frames(originals, speech.floor)
        self.both = Frames([*originals, *others], speech.floor)

    @classmethod
    def load(cls, speech: SpeechSet, codec_folder: Path, device: str) -> TrainingFrames:
        """The renditions of ``speech`` by the codec stored in ``codec_folder``."""
        return cls(speech, None if isinstance(speech, WaveSet) else Codec.load(codec_folder, device), device)

    def batch(self, indices: np.ndarray, seed: int, stream: str, step: int) -> tuple[Tensor, Tensor]:
        """``F [B, T, M], lengths [B]`` of ``indices [B]``; a fair coin for each sample picks the rendition."""
        coins = seeding.uniform((len(indices),), seed, stream, step) < 0.5
        return self.both.batch((torch.from_numpy(indices) + self.size * coins).to(self.device))


def vote_shares(speech: SpeechSet, emotions: tuple[str, ...]) -> Tensor:
    """Share of each class in the raters' votes ``[N, K]``; one-hot of the label where nobody voted."""
    votes = [utterance.votes or (utterance.emotion,) for utterance in speech.utterances]
    return torch.tensor([[cast.count(emotion) / len(cast) for emotion in emotions] for cast in votes])


@torch.no_grad()
def _resynthesised(speech: SpeechSet, codec: Codec, device: str) -> list[Tensor]:
    """In order of length, so that little is computed on padding; returned in the set's own order."""
    order = np.argsort(np.asarray(speech.frames), kind="stable")
    parts: dict[int, Tensor] = {}
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        F, lengths = speech.batch(chunk, device)
        speaker = codec.speaker_index([speech.utterances[i].speaker for i in chunk], average=True).to(device)
        F, lengths = codec.resynthesise(F, lengths, speaker)
        parts |= {int(i): frames[:length] for i, frames, length in zip(chunk, F, lengths.tolist(), strict=True)}
    return [parts[i] for i in range(len(order))]

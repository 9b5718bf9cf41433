"""Training data of the reward model: each utterance as analyzed or as re-synthesized by the codec, with equal probability.

A policy's frames come from the codec's decoder. A model trained only on original frames would be evaluated, and optimized
against, outside its domain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import unpad_sequence

from rrpo import seeding
from rrpo.corpus.features import SpeechSet, WaveSet
from rrpo.masking import valid_mask
from rrpo.models.codec import Codec

CHUNK = 64
"""Utterances per batch of re-synthesis."""


class Frames:
    """Utterances concatenated on one device, so that a padded batch is a single gather."""

    def __init__(self, utterances: Iterable[Tensor], floor: float) -> None:
        """Concatenate the utterances.

        Args:
            utterances: Frames ``[l_i, M]`` of each utterance.
            floor: Smallest mel power, or 1 for waveforms; its logarithm is the padding.
        """
        parts = list(utterances)
        self.flat = torch.cat(parts)
        self.lengths = torch.tensor([len(part) for part in parts], device=self.flat.device)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.padding = math.log(floor)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``F [B, T, M], lengths [B]`` of ``indices [B]``, padded to the longest."""
        lengths = self.lengths[indices]
        T = int(lengths.max())
        mask = valid_mask(lengths, T)
        rows = (self.starts[indices][:, None] + torch.arange(T, device=indices.device)).clamp(max=len(self.flat) - 1)
        return self.flat[rows].masked_fill(~mask[..., None], self.padding), lengths

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all utterances in their order, in batches of ``size``, as `batch` returns them."""
        for indices in torch.arange(len(self.lengths), device=self.flat.device).split(size):
            yield self.batch(indices)


class TrainingFrames:
    """The utterances of one ``speech`` stage in two renditions: original and re-synthesized. Waveforms have only the original."""

    def __init__(self, speech: SpeechSet, codec: Codec | None, device: str) -> None:
        self.size = 0 if codec is None else len(speech)
        self.device = device
        originals = [speech.mel(index).to(device) for index in range(len(speech))]
        self.originals = self.both = Frames(originals, speech.floor)
        if codec is not None:
            self.both = Frames([*originals, *_resynthesise(speech, codec, device)], speech.floor)

    @classmethod
    def load(cls, speech: SpeechSet, codec_folder: Path, device: str) -> TrainingFrames:
        """Load the codec of ``codec_folder`` and re-synthesize ``speech`` with it; waveforms need no codec."""
        return cls(speech, None if isinstance(speech, WaveSet) else Codec.load(codec_folder, device), device)

    def batch(self, indices: np.ndarray, seed: int, stream: str, step: int) -> tuple[Tensor, Tensor]:
        """Return ``F [B, T, M], lengths [B]`` of ``indices [B]``; a fair coin per sample selects the rendition."""
        coins = seeding.uniform((len(indices),), seed, stream, step) < 0.5
        return self.both.batch((torch.from_numpy(indices) + self.size * coins).to(self.device))


def vote_shares(speech: SpeechSet, emotions: tuple[str, ...]) -> Tensor:
    """Return the share of each class in the raters' votes ``[N, K]``; one-hot of the label if there are no votes."""
    votes = [utterance.votes or (utterance.emotion,) for utterance in speech.utterances]
    return torch.tensor([[ballot.count(emotion) / len(ballot) for emotion in emotions] for ballot in votes])


@torch.no_grad()
def _resynthesise(speech: SpeechSet, codec: Codec, device: str) -> list[Tensor]:
    """Re-synthesize in order of length, to reduce padding. Return the utterances in the set's own order."""
    order = np.argsort(np.asarray(speech.frames), kind="stable")
    parts: dict[int, Tensor] = {}
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        F, lengths = speech.batch(chunk, device)
        speaker = codec.speaker_index([speech.utterances[i].speaker for i in chunk], average=True)
        F, lengths = codec.resynthesise(F, lengths, speaker)
        parts |= zip(chunk.tolist(), unpad_sequence(F, lengths, batch_first=True), strict=True)
    return [parts[i] for i in range(len(order))]

"""Stage ``intensity``: emotional intensity of each stored sample, by its acoustics and by gold's probabilities of all classes.

Acoustic intensity is a sample's position on the axis from neutral speech (0) to speech with the target emotion (1): the linear
discriminant of the two, from `MEASURES` of rendered, held-out speech after the codec, relative to each speaker's own neutral
speech. It uses no neural network. Only reports read the results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rrpo.audio import mel_centres
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.tags import NEUTRAL
from rrpo.judges.config import IntensityConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.sample_table import CHUNK, in_chunks
from rrpo.judges.samples import Samples, load_samples
from rrpo.masking import masked_mean, valid_mask
from rrpo.models.codec import Codec
from rrpo.models.pitch import ROWS, tracked
from rrpo.pipeline.stages import Context

MEASURES = ("f0_level", "f0_spread", "energy", "energy_spread", "tilt", "pace")
"""F0's mean and standard deviation in semitones over voiced frames; the same of the frames' log energy; mean log ratio of the
power above `TILT_HZ` to that below; log of frames per phone."""
TILT_HZ = 1500.0
"""Boundary frequency of the spectral tilt, in Hz."""
VOICED = 0.5
"""Minimum similarity to a comb for a frame to count as voiced."""


@torch.no_grad()
def measures(F: Tensor, lengths: Tensor, phones: Tensor, audio: AudioConfig) -> np.ndarray:
    """Return `MEASURES` ``[B, 6]`` of ``F [B, T, M]``, ``lengths [B]`` in frames, ``phones [B]`` of their texts."""
    F, lengths = F[:, : max(1, int(lengths.max()))], lengths.clamp(min=1)
    mask = valid_mask(lengths, F.shape[1])
    pitch, similarity = tracked(F, audio)
    high = (mel_centres(audio) > TILT_HZ).to(F.device)
    energy = F.logsumexp(2)
    columns = [*_moments(pitch / ROWS, mask & (similarity > VOICED)), *_moments(energy, mask)]
    columns.append(masked_mean(F[..., high].logsumexp(2) - F[..., ~high].logsumexp(2), mask))
    columns.append((lengths / phones.clamp(min=1)).log())
    return torch.stack([column.double() for column in columns], 1).cpu().numpy()


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation ``[B]`` of ``values [B, T]`` where ``mask`` is True; 0 if it is never True."""
    mean = masked_mean(values, mask)
    return mean, masked_mean((values - mean[:, None]).square(), mask).sqrt()


class Axes:
    """The axes from neutral to each emotion."""

    def __init__(self, x: np.ndarray, emotions: Sequence[str], speakers: Sequence[str], shrinkage: float) -> None:
        """Fit the axes to ``x [U, D]`` of utterances with these emotions (including `NEUTRAL`) and speakers."""
        labels, voices = np.array(emotions), np.array(speakers)
        neutral = labels == NEUTRAL
        self.neutral = {name: x[neutral & (voices == name)].mean(0) for name in sorted(set(voices[neutral]))}
        relative = self._relative(x, speakers)
        self.means = {name: relative[labels == name].mean(0) for name in sorted(set(labels) - {NEUTRAL})}
        residuals = relative - np.array([self.means.get(name, 0 * x[0]) for name in labels])
        covariance = residuals.T @ residuals / len(x)
        self.precision = np.linalg.inv(covariance + shrinkage * np.diag(np.diag(covariance)))

    def places(self, x: np.ndarray, emotions: Sequence[str], speakers: Sequence[str]) -> np.ndarray:
        """Return positions ``[B]`` of ``x [B, D]`` between the speaker's neutral speech, 0, and the emotion's mean, 1."""
        relative = self._relative(x, speakers)
        means = np.array([self.means[name] for name in emotions])
        axis = means @ self.precision
        positions: np.ndarray = (relative * axis).sum(1) / (means * axis).sum(1)
        return positions

    def _relative(self, x: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
        """Return ``x [B, D]`` minus the speaker's neutral speech. Raises ValueError if there is none."""
        if lacking := sorted(set(speakers) - self.neutral.keys()):
            raise ValueError(f"there is no {NEUTRAL} speech by {', '.join(lacking)}, with which intensity is compared")
        return x - np.array([self.neutral[name] for name in speakers])


def build(config: IntensityConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write ``intensity_samples.parquet``, ``intensity_points.parquet`` and ``scalars.json``.

    Columns of the samples: ``step``, ``prompt``, ``intensity``, and gold's probability ``heard_<emotion>`` of each class. Reads
    ``samples``, ``eval_prompts``, ``codec``, ``test`` and ``speech`` with neutral utterances by every speaker of the prompts.
    """
    codec, test = Codec.load(inputs["codec"], context.device), Judge.load(inputs["test"], context.device)
    samples, prompts = load_samples(inputs)
    axes = _axes(SpeechSet.load(inputs["speech"]), codec, context.device, config.shrinkage)

    def measure_chunk(chunk: Samples, rows: np.ndarray, F: Tensor, lengths: Tensor) -> pd.DataFrame:
        own = chunk.of(prompts)
        phones = torch.tensor([len(prompt.phones) for prompt in own], device=F.device)
        x = measures(F, lengths, phones, codec.audio)
        positions = axes.places(x, [prompt.emotion for prompt in own], [prompt.speaker for prompt in own])
        probabilities = test.log_probs(F, lengths).exp().double().cpu().numpy()
        columns = {f"heard_{name}": probabilities[:, k] for k, name in enumerate(test.emotions)}
        return pd.DataFrame({"step": chunk.step, "prompt": chunk.prompt, "intensity": positions} | columns)

    table = in_chunks(samples, prompts, codec, measure_chunk, context.report)
    table.to_parquet(out / "intensity_samples.parquet", index=False)
    points = table.groupby("step", as_index=False)["intensity"].mean()
    points.to_parquet(out / "intensity_points.parquet", index=False)
    (out / "scalars.json").write_text(json.dumps({"end_intensity": float(points["intensity"].iloc[-1])}))


def _axes(speech: SpeechSet, codec: Codec, device: str, shrinkage: float) -> Axes:
    """Fit the axes to utterances as re-synthesized by the codec."""
    order = np.argsort(speech.frames, kind="stable")
    x = np.empty((len(speech), len(MEASURES)))
    for chunk in np.array_split(order, math.ceil(len(order) / CHUNK)):
        utterances = [speech.utterances[i] for i in chunk]
        F, lengths = speech.batch(chunk, device)
        with torch.no_grad():
            speaker = codec.speaker_index([u.speaker for u in utterances])
            F, lengths = codec.resynthesise(F, lengths, speaker)
        phones = torch.tensor([len(u.phones) for u in utterances], device=device)
        x[chunk] = measures(F, lengths, phones, codec.audio)
    return Axes(x, [u.emotion for u in speech.utterances], [u.speaker for u in speech.utterances], shrinkage)

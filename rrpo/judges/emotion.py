"""Held-out emotion judges: ``val`` (`ConvGru` on F) and ``test`` (`StatsTdnn` on features re-extracted from the vocoded wave).

Both train on utterances as analyzed and as re-synthesized by the codec, half of each, because a policy's frames come from the
decoder. On rendered speech they also learn to regress its prosodic cues z as an auxiliary task: gold may know more than any
reward model, and eight numbers per utterance are more informative than one label. Loudness is a cue of emotion, so it is
neither normalized nor augmented. Probabilities are calibrated by one temperature (Guo et al. 2017), fitted on held-out
utterances.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor, nn
from torch.nn.utils.rnn import unpad_sequence

from rrpo.corpus.config import AudioConfig
from rrpo.corpus.draws import generator
from rrpo.corpus.emotions import CUES
from rrpo.corpus.features import SpeechSet
from rrpo.judges import metrics
from rrpo.judges.config import JudgeConfig
from rrpo.judges.networks import ConvGru, StatsTdnn
from rrpo.judges.wave_features import SIZE, wave_features
from rrpo.models.vocoder import vocode
from rrpo.pipeline.stages import Context
from rrpo.seeding import bucketed, permutation_batches, seed_everything
from rrpo.training.data import Frames, TrainingFrames
from rrpo.training.trainer import fit

GRIFFIN_LIM_STEPS = 1
"""Iterations of the test judge's own vocoder: trained on it, the judge is as accurate as on three from zero phase (.874 of
1,500)."""
CHUNK = 16
"""Utterances of similar length analyzed at once; results do not depend on it. More would exceed the CPU's caches."""
CUE_WEIGHT = 2.0
"""Weight of the mean squared error of the standardized cues relative to the cross-entropy; 0 on a manifest without render
specs."""
BLANKED = {"conv_gru": (8, 5), "stats_tdnn": (5, 5)}
"""Maximum width of the blocks of features and of frames that augmentation masks (SpecAugment, Park et al. 2019)."""


class Judge(nn.Module):
    """Emotion log-probabilities of log-mel frames; see `log_probs`."""

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, config: JudgeConfig, emotions: tuple[str, ...], audio: AudioConfig) -> None:
        super().__init__()
        if config.architecture not in BLANKED:
            raise ValueError(f"unknown JudgeConfig.architecture {config.architecture!r}; use one of {sorted(BLANKED)}")
        self.config, self.emotions, self.audio = config, tuple(emotions), audio
        self.on_wave = config.architecture == "stats_tdnn"
        size = SIZE if self.on_wave else audio.n_mels
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("temperature", torch.ones(()))
        network = StatsTdnn if self.on_wave else ConvGru
        self.network = network(size, config.dim, len(self.emotions) + len(CUES))

    @torch.no_grad()
    def features(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``F [B, T, M], lengths [B]`` -> the network's input ``[B, T'', C]`` and lengths: F, or the wave's features."""
        if not self.on_wave:
            return F.float(), lengths
        wave = vocode(F, lengths, replace(self.audio, griffin_lim_steps=GRIFFIN_LIM_STEPS))
        return wave_features(wave, (lengths - 1) * self.audio.hop, self.audio.sample_rate)

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        """`features` -> logits ``[B, K]``, not calibrated."""
        return self.outputs(X, lengths)[0]

    def outputs(self, X: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`features` -> logits ``[B, K]`` and standardized cues ``[B, len(CUES)]``."""
        y = self.network((X - self.mean) / self.std, lengths).float()
        return y[:, : len(self.emotions)], y[:, len(self.emotions) :]

    @torch.no_grad()
    def log_probs(self, F: Tensor, lengths: Tensor) -> Tensor:
        """``F [B, T, M], lengths [B]`` in frames -> calibrated log-probabilities ``[B, K]``, without gradient.

        A sample without frames is treated as one frame.
        """
        lengths = lengths.clamp(min=1)
        log_probs = F.new_empty(len(F), len(self.emotions), dtype=torch.float32)
        for rows in lengths.argsort(stable=True).split(CHUNK):
            X, sizes = self.features(F[rows, : int(lengths[rows].max())], lengths[rows])
            log_probs[rows] = F_.log_softmax(self(X, sizes) / self.temperature, 1)
        return log_probs

    def save(self, folder: Path) -> None:
        """Write ``judge.json`` and ``judge.pt`` into ``folder``."""
        description = {"config": asdict(self.config), "emotions": self.emotions, "audio": asdict(self.audio)}
        (folder / "judge.json").write_text(json.dumps(description, indent=1))
        torch.save({name: value.cpu() for name, value in self.state_dict().items()}, folder / "judge.pt")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Judge:
        """Load a judge written by `save`; frozen, in evaluation mode."""
        path = folder / "judge.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} contains no judge.json; give a folder written by Judge.save")
        description = json.loads(path.read_text())
        judge = cls(
            JudgeConfig(**description["config"]), tuple(description["emotions"]), AudioConfig(**description["audio"])
        )
        judge.load_state_dict(torch.load(folder / "judge.pt", map_location="cpu", weights_only=True))
        return judge.to(device).eval().requires_grad_(False)


def build(config: JudgeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``judge``: train on ``speech``; calibrate and measure on ``heldout``, both as analyzed and re-synthesized."""
    speech, heldout = SpeechSet.load(inputs["speech"]), SpeechSet.load(inputs["heldout"])
    seed_everything(config.seed, f"judge {config.architecture}")
    judge = Judge(config, speech.emotions, speech.audio).to(context.device)
    data = analyse(judge, speech, inputs["codec"], context.device)
    judge.mean.copy_(data.flat.mean(0))
    judge.std.copy_(data.flat.std(0).clamp(min=1e-3))
    targets = speech.labels(judge.emotions).to(context.device)
    cues, weight = rendered_cues(speech, context.device)
    # both renditions of an utterance are rows of `data`: originals first, then the re-synthesized ones
    stream = f"judge {config.architecture} batches"
    batches = permutation_batches(2 * len(speech), config.batch, config.steps, config.seed, stream)
    batches = bucketed(batches, data.lengths.cpu().numpy(), config.seed, f"{stream} bucketed")

    def loss(step: int) -> Tensor:
        rows = torch.from_numpy(batches[step]).to(context.device)
        X, lengths = data.batch(rows)
        X = blank(X, lengths, judge.mean, BLANKED[config.architecture], config.seed, step)
        logits, predicted_cues = judge.outputs(X, lengths)
        rows = rows % len(speech)
        return F_.cross_entropy(logits, targets[rows]) + weight * F_.mse_loss(predicted_cues, cues[rows])

    fit(judge.parameters(), loss, config.steps, config.lr, context)
    judge.eval()
    scalars = calibrate(judge, heldout, inputs["codec"], context.device)
    judge.save(out)
    (out / "scalars.json").write_text(json.dumps(scalars))


def analyse(judge: Judge, speech: SpeechSet, codec: Path, device: str) -> Frames:
    """Return the judge's features of every utterance as analyzed (rows 0..n-1), then of every one re-synthesized (rows
    n..2n-1)."""
    both = TrainingFrames.load(speech, codec, device).both
    order = torch.argsort(both.lengths, stable=True)
    features: dict[int, Tensor] = {}
    for rows in order.split(CHUNK):
        X, sizes = judge.features(*both.batch(rows))
        features |= zip(rows.tolist(), unpad_sequence(X, sizes, batch_first=True), strict=True)
    return Frames((features[row] for row in range(len(order))), floor=1.0)


def rendered_cues(speech: SpeechSet, device: str) -> tuple[Tensor, float]:
    """Return standardized cues ``[n, len(CUES)]`` and the weight of their loss; zeros and 0 if an utterance was not rendered."""
    known = [utterance.spec.cues for utterance in speech.utterances if utterance.spec is not None]
    if len(known) < len(speech):
        return torch.zeros(len(speech), len(CUES), device=device), 0.0
    cues = torch.tensor(known, device=device)
    return (cues - cues.mean(0)) / cues.std(0).clamp(min=1e-3), CUE_WEIGHT


def blank(X: Tensor, lengths: Tensor, fill: Tensor, widest: tuple[int, int], seed: int, step: int) -> Tensor:
    """Return ``X [B, T, C]`` with one block of features and one of frames set to the mean ``fill [C]``, keyed by (seed, step)."""
    B, T, C = X.shape
    draws = torch.from_numpy(generator(seed, "judge blanks", step).random((B, 4))).float().to(X.device)
    widths, durations = draws[:, 0] * widest[0], draws[:, 1] * widest[1]
    first_channel, first_frame = draws[:, 2] * (C - widths), draws[:, 3] * (lengths - durations)
    channel, frame = torch.arange(C, device=X.device), torch.arange(T, device=X.device)
    stripe = (channel >= first_channel[:, None]) & (channel < (first_channel + widths)[:, None])
    gap = (frame >= first_frame[:, None]) & (frame < (first_frame + durations)[:, None])
    return torch.where(stripe[:, None] | gap[..., None], fill, X)


@torch.no_grad()
def calibrate(judge: Judge, heldout: SpeechSet, codec: Path, device: str) -> dict[str, float]:
    """Set the temperature. Return accuracy and calibration error on ``heldout``, for each rendition and for both together.

    The error is cross-fitted (each half of the utterances uses the temperature of the other half), in ten bins: even a
    perfectly calibrated judge shows about .04 on 400 utterances, and less on more.
    """
    data = analyse(judge, heldout, codec, device)
    n = len(heldout)
    rows = torch.arange(2 * n, device=device)
    logits = torch.cat([judge(*batch) for batch in data.batches(CHUNK)])
    targets = heldout.labels(judge.emotions).to(device).repeat(2)
    judge.temperature.fill_(best_temperature(logits, targets))
    fold = (rows % n) % 2
    log_probs = torch.empty_like(logits)
    for k in (0, 1):
        other = fold != k if n > 1 else fold == k
        log_probs[fold == k] = F_.log_softmax(logits[fold == k] / best_temperature(logits[other], targets[other]), 1)
    predictions, labels = log_probs.cpu().numpy(), targets.cpu().numpy()
    scalars = {
        "temperature": judge.temperature.item(),
        "ece": metrics.expected_calibration_error(predictions, labels, bins=10),
    }
    for name, selection in {"original": slice(0, n), "resynthesised": slice(n, 2 * n)}.items():
        scalars[f"accuracy_{name}"] = metrics.accuracy(predictions[selection], labels[selection])
        scalars[f"ece_{name}"] = metrics.expected_calibration_error(predictions[selection], labels[selection], bins=10)
    return scalars


def best_temperature(logits: Tensor, targets: Tensor) -> float:
    """Return the temperature in [.1, 10] that maximizes the likelihood of ``targets [n]`` under ``logits [n, K]``."""
    grid = np.logspace(-1, 1, 201)
    losses = [F_.cross_entropy(logits / value, targets).item() for value in grid]
    return float(grid[int(np.argmin(losses))])

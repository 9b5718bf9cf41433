"""Held-out emotion judges: ``val`` (`ConvGru` on F) and ``test`` (`StatsTdnn` on features re-extracted from the vocoded wave).

Both train on utterances as analysed and as the codec gives them back, half of each, since a policy's frames come from the
decoder. Loudness is a cue of emotion, so nothing normalises or jitters it. Probabilities are calibrated by one temperature
(Guo et al. 2017), fitted on the even-numbered held-out utterances; the calibration error is reported on the odd ones.
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

from rrpo.audio import vocode
from rrpo.codec import Codec
from rrpo.config import AudioConfig, JudgeConfig
from rrpo.corpus.features import SpeechSet
from rrpo.data import Frames, TrainingFrames
from rrpo.judges import metrics
from rrpo.judges.networks import ConvGru, StatsTdnn
from rrpo.judges.wave_features import SIZE, wave_features
from rrpo.seeding import numpy_generator, permutation_batches, seed_everything
from rrpo.stages import Context
from rrpo.training import fit

GRIFFIN_LIM_STEPS = 6
"""Of the test judge's own rendering: its features are magnitudes, which hardly change after that."""
CHUNK = 64
"""Utterances analysed at once; results do not depend on it."""
SMOOTHING = 0.05
"""Label smoothing in training, against over-confidence."""
BLANKED = {"conv_gru": (12, 8), "stats_tdnn": (6, 8)}
"""Widest stripe of features and of frames that augmentation blanks (SpecAugment, Park et al. 2019)."""


class Judge(nn.Module):
    """Emotion log-probabilities of log-mel frames; see `log_probs`."""

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, config: JudgeConfig, emotions: tuple[str, ...], audio: AudioConfig) -> None:
        super().__init__()
        if config.architecture not in BLANKED:
            raise ValueError(f"JudgeConfig.architecture is {config.architecture!r}; use one of {sorted(BLANKED)}")
        self.config, self.emotions, self.audio = config, tuple(emotions), audio
        self.on_wave = config.architecture == "stats_tdnn"
        size = SIZE if self.on_wave else audio.n_mels
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("temperature", torch.ones(()))
        network = StatsTdnn if self.on_wave else ConvGru
        self.network = network(size, config.dim, len(self.emotions))

    @torch.no_grad()
    def features(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``F [B, T, M], lengths [B]`` -> what the network reads ``[B, T'', C]``, and lengths: F itself, or analysed from the wave."""
        if not self.on_wave:
            return F.float(), lengths
        wave = vocode(F, lengths, replace(self.audio, griffin_lim_steps=GRIFFIN_LIM_STEPS))
        return wave_features(wave, (lengths - 1) * self.audio.hop, self.audio.sample_rate)

    def forward(self, X: Tensor, lengths: Tensor) -> Tensor:
        """``features`` -> logits ``[B, K]``, not calibrated."""
        logits: Tensor = self.network((X - self.mean) / self.std, lengths)
        return logits

    @torch.no_grad()
    def log_probs(self, F: Tensor, lengths: Tensor) -> Tensor:
        """``F [B, T, M], lengths [B]`` in frames -> calibrated log-probabilities ``[B, K]``. A judge gives no gradient."""
        parts = []
        for first in range(0, len(F), CHUNK):
            part = lengths[first : first + CHUNK]
            X, sizes = self.features(F[first : first + CHUNK, : int(part.max())], part)
            parts.append(F_.log_softmax(self(X, sizes).float() / self.temperature, 1))
        return torch.cat(parts)

    def save(self, folder: Path) -> None:
        """Writes ``judge.json`` and ``judge.pt`` into ``folder``."""
        about = {"config": asdict(self.config), "emotions": self.emotions, "audio": asdict(self.audio)}
        (folder / "judge.json").write_text(json.dumps(about, indent=1))
        torch.save({name: value.cpu() for name, value in self.state_dict().items()}, folder / "judge.pt")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Judge:
        """Reads what `save` wrote; frozen, in evaluation mode."""
        path = folder / "judge.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no judge.json; give a folder that Judge.save wrote")
        about = json.loads(path.read_text())
        judge = cls(JudgeConfig(**about["config"]), tuple(about["emotions"]), AudioConfig(**about["audio"]))
        judge.load_state_dict(torch.load(folder / "judge.pt", map_location="cpu", weights_only=True))
        return judge.to(device).eval().requires_grad_(False)


def build(config: JudgeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``judge``: trains on ``speech``, calibrates and measures on ``heldout``, both as analysed and re-synthesised."""
    speech, heldout = SpeechSet.load(inputs["speech"]), SpeechSet.load(inputs["heldout"])
    seed_everything(config.seed, f"judge {config.architecture}")
    judge = Judge(config, speech.emotions, speech.audio).to(context.device)
    data = analyse(judge, speech, inputs["codec"], context.device)
    judge.mean.copy_(data.flat.mean(0))
    judge.std.copy_(data.flat.std(0).clamp(min=1e-3))
    targets = speech.labels(judge.emotions).to(context.device)
    # both renditions of an utterance are rows of `data`: originals first, re-synthesised behind them
    stream = f"judge {config.architecture} batches"
    batches = permutation_batches(2 * len(speech), config.batch, config.steps, config.seed, stream)

    def loss(step: int) -> Tensor:
        rows = torch.from_numpy(batches[step]).to(context.device)
        X, lengths = data.batch(rows)
        X = blank(X, lengths, judge.mean, BLANKED[config.architecture], config.seed, step)
        return F_.cross_entropy(judge(X, lengths), targets[rows % len(speech)], label_smoothing=SMOOTHING)

    fit(judge.parameters(), loss, config.steps, config.lr, context)
    judge.eval()
    scalars = calibrate(judge, heldout, inputs["codec"], context.device)
    judge.save(out)
    (out / "scalars.json").write_text(json.dumps(scalars))


def analyse(judge: Judge, speech: SpeechSet, codec: Path, device: str) -> Frames:
    """The judge's features of every utterance as analysed (rows 0..n-1), then of every one re-synthesised (rows n..2n-1)."""
    both = TrainingFrames.load(speech, codec, device).both
    order = torch.argsort(both.lengths, stable=True)
    found: dict[int, Tensor] = {}
    for rows in order.split(CHUNK):
        X, sizes = judge.features(*both.batch(rows))
        found |= {row: x[:size] for row, x, size in zip(rows.tolist(), X, sizes.tolist(), strict=True)}
    return Frames((found[row] for row in range(len(order))), floor=1.0)


def blank(X: Tensor, lengths: Tensor, fill: Tensor, widest: tuple[int, int], seed: int, step: int) -> Tensor:
    """``X [B, T, C]`` with one stripe of features and one of frames set to the mean ``fill [C]``, keyed by (seed, step)."""
    B, T, C = X.shape
    draws = torch.from_numpy(numpy_generator(seed, "judge blanks", step).random((B, 4))).float().to(X.device)
    wide, long = draws[:, 0] * widest[0], draws[:, 1] * widest[1]
    low, first = draws[:, 2] * (C - wide), draws[:, 3] * (lengths - long)
    channel, frame = torch.arange(C, device=X.device), torch.arange(T, device=X.device)
    stripe = (channel >= low[:, None]) & (channel < (low + wide)[:, None])
    gap = (frame >= first[:, None]) & (frame < (first + long)[:, None])
    return torch.where(stripe[:, None] | gap[..., None], fill, X)


@torch.no_grad()
def calibrate(judge: Judge, heldout: SpeechSet, codec: Path, device: str) -> dict[str, float]:
    """Sets the temperature; held-out accuracy (all utterances) and calibration error (odd ones) of both renditions."""
    data = analyse(judge, heldout, codec, device)
    n = len(heldout)
    logits = torch.cat([judge(*data.batch(rows)) for rows in torch.arange(2 * n, device=device).split(CHUNK)]).float()
    targets = heldout.labels(judge.emotions).to(device).repeat(2)
    even = (torch.arange(2 * n, device=device) % n) % 2 == 0
    grid = torch.logspace(-1, 1, 201, device=device)
    losses = [F_.cross_entropy(logits[even] / value, targets[even]) for value in grid]
    judge.temperature.copy_(grid[int(torch.stack(losses).argmin())])
    log_probs = F_.log_softmax(logits / judge.temperature, 1).cpu().numpy()
    truth, odd = targets.cpu().numpy(), ~even.cpu().numpy()
    renditions = {"original": np.arange(2 * n) < n, "resynthesised": np.arange(2 * n) >= n}
    scalars = {f"accuracy_{name}": metrics.accuracy(log_probs[rows], truth[rows]) for name, rows in renditions.items()}
    for name, rows in renditions.items():
        if (rows & odd).any():
            scalars[f"ece_{name}"] = metrics.expected_calibration_error(log_probs[rows & odd], truth[rows & odd])
    return scalars | {"temperature": judge.temperature.item()}

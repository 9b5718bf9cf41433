"""A judge as a plugin: nearest centroid of each emotion, in the mean and standard deviation of every mel band over the utterance.

python -m ablations.run --grid smoke --plugin examples/centroid_judge.py
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from rrpo.corpus.config import AudioConfig
from rrpo.judges.protocol import JUDGES
from rrpo.masking import valid_mask
from rrpo.training.data import Frames


def statistics(F: Tensor, lengths: Tensor) -> Tensor:
    """Return mean and standard deviation ``[B, 2M]`` of ``F [B, T, M]`` over the first ``lengths [B]`` frames."""
    mask = valid_mask(lengths, F.shape[1])[..., None]
    n = lengths.clamp(min=1)[:, None]
    mean = F.masked_fill(~mask, 0).sum(1) / n
    return torch.cat([mean, ((F - mean[:, None]).masked_fill(~mask, 0).square().sum(1) / n).sqrt()], 1)


class CentroidJudge:
    """Gaussian classifier: one centroid per emotion, and for each statistic one standard deviation common to all emotions."""

    label: ClassVar[str] = "centroid judge"
    veto: ClassVar[bool] = False

    def __init__(self, centroids: Tensor, spread: Tensor, emotions: tuple[str, ...]) -> None:
        self.centroids, self.spread, self.emotions = centroids, spread, emotions

    @classmethod
    def train(
        cls, frames: Frames, labels: Tensor, emotions: tuple[str, ...], audio: AudioConfig, seed: int
    ) -> CentroidJudge:
        rows = torch.arange(len(labels), device=labels.device).split(64)
        x = torch.cat([statistics(*frames.batch(part)) for part in rows])
        centroids = torch.stack([x[labels == k].mean(0) for k in range(len(emotions))])
        return cls(centroids, (x - centroids[labels]).std(0).clamp(min=1e-3), emotions)

    def log_probs(self, F: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, K]``: log-softmax of -1/2 the mean squared standardized distance times √(number of statistics)."""
        distance = (statistics(F, lengths)[:, None] - self.centroids.to(F.device)) / self.spread.to(F.device)
        return (-0.5 * distance.square().mean(2) * distance.shape[2] ** 0.5).log_softmax(1)

    def save(self, folder: Path) -> None:
        torch.save((self.centroids.cpu(), self.spread.cpu(), self.emotions), folder / "centroids.pt")

    @classmethod
    def load(cls, folder: Path) -> CentroidJudge:
        return cls(*torch.load(folder / "centroids.pt"))


JUDGES.register("centroid", CentroidJudge)

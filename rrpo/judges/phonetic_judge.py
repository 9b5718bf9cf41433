"""The third, non-neural judge: Praat's measures of the vocoded wave -> linear or quadratic discriminant analysis.

It has its own data and, like the other judges, trains on utterances as analyzed and as re-synthesized by the codec.
Cross-validation on its training data chooses between the two analyses. It uses no speaker identity. scikit-learn fits it; the
stored arrays do not depend on scikit-learn's version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rrpo.corpus.config import AudioConfig
from rrpo.corpus.features import SpeechSet
from rrpo.judges.config import PhoneticJudgeConfig
from rrpo.judges.phonetics import measure
from rrpo.judges.spoken import waves_of
from rrpo.pipeline.stages import Context
from rrpo.training.data import TrainingFrames

CHUNK = 64
"""Utterances vocoded at once."""
SMALLEST = 1e-6
"""Minimum probability, so that its logarithm is finite."""
CLASSIFIER = "classifier.npz"
"""The `Discriminant`, in the judge's folder."""


@dataclass(frozen=True)
class Discriminant:
    """Gaussian discriminant analysis as plain arrays: one formula for the linear and the quadratic variant.

    log p(k | x) up to a constant = intercept_k + coef_k · z - |(z - means_k) whitening_k|² / 2, of z = (x - shift) / scale. The
    linear variant has zero whitening, the quadratic one zero coefficients.
    """

    shift: np.ndarray
    """Mean of each feature ``[D]``."""
    scale: np.ndarray
    """Standard deviation of each feature ``[D]``."""
    coef: np.ndarray
    """``[K, D]``."""
    intercept: np.ndarray
    """``[K]``, log prior included."""
    means: np.ndarray
    """Classes' means of z ``[K, D]``."""
    whitening: np.ndarray
    """Square roots of the classes' inverse covariances ``[K, D, D]``."""

    def log_probs(self, x: np.ndarray) -> np.ndarray:
        """``x [B, D]`` -> log-probabilities ``[B, K]``."""
        z = (x - self.shift) / self.scale  # [B, D]
        white = np.einsum("bkd,kde->bke", z[:, None] - self.means, self.whitening)  # [B, K, D]
        scores = z @ self.coef.T + self.intercept - (white**2).sum(2) / 2  # [B, K]
        scores -= scores.max(1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(1, keepdims=True))

    def save(self, path: Path) -> None:
        """Write the arrays as ``.npz``."""
        np.savez(path, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Discriminant:
        """Load the arrays written by `save`."""
        with np.load(path) as stored:
            return cls(**stored)


def of_linear(scaler: Any, fitted: Any) -> Discriminant:
    """Convert a fitted ``StandardScaler`` and ``LinearDiscriminantAnalysis`` of scikit-learn."""
    K, D = len(fitted.classes_), len(scaler.mean_)
    missing = K - len(fitted.coef_)  # for two classes scikit-learn keeps only the difference
    coef = np.concatenate([np.zeros((missing, D)), fitted.coef_])
    intercept = np.concatenate([np.zeros(missing), fitted.intercept_])
    return Discriminant(scaler.mean_, scaler.scale_, coef, intercept, np.zeros((K, D)), np.zeros((K, D, D)))


def of_quadratic(scaler: Any, fitted: Any) -> Discriminant:
    """Convert a fitted ``StandardScaler`` and ``QuadraticDiscriminantAnalysis`` of scikit-learn."""
    variances = np.array(fitted.scalings_)  # [K, D], along the columns of the rotations
    whitening = np.array(fitted.rotations_) / np.sqrt(variances)[:, None]
    intercept = np.log(fitted.priors_) - np.log(variances).sum(1) / 2
    return Discriminant(scaler.mean_, scaler.scale_, np.zeros_like(fitted.means_), intercept, fitted.means_, whitening)


class PhoneticJudge:
    """Emotion log-probabilities of log-mel frames via the vocoded wave; see `log_probs`."""

    def __init__(self, classifier: Discriminant, emotions: tuple[str, ...], audio: AudioConfig) -> None:
        self.classifier, self.emotions, self.audio = classifier, emotions, audio

    def log_probs(self, F: Tensor, lengths: Tensor) -> Tensor:
        """``F [B, T, M], lengths [B]`` in frames -> log-probabilities ``[B, K]``."""
        return self.of_measures(features(F, lengths, self.audio))

    def of_measures(self, x: np.ndarray) -> Tensor:
        """`features` ``[B, 11]`` -> log-probabilities ``[B, K]``."""
        return torch.from_numpy(np.maximum(self.classifier.log_probs(x), np.log(SMALLEST))).float()

    def save(self, folder: Path) -> None:
        """Write ``phonetic_judge.json`` and ``classifier.npz`` into ``folder``."""
        description = {"emotions": self.emotions, "audio": asdict(self.audio)}
        (folder / "phonetic_judge.json").write_text(json.dumps(description, indent=1))
        self.classifier.save(folder / CLASSIFIER)

    @classmethod
    def load(cls, folder: Path) -> PhoneticJudge:
        """Load a judge written by `save`."""
        description = json.loads((folder / "phonetic_judge.json").read_text())
        emotions, audio = tuple(description["emotions"]), AudioConfig(**description["audio"])
        return cls(Discriminant.load(folder / CLASSIFIER), emotions, audio)


def features(F: Tensor, lengths: Tensor, audio: AudioConfig) -> np.ndarray:
    """Return `rrpo.judges.phonetics.MEASURES` ``[B, 11]`` of ``F [B, T, M]``, ``lengths [B]`` in frames, vocoded."""
    return np.array([measure(wave, audio.sample_rate) for wave in waves_of(F, lengths, audio)])


def build(config: PhoneticJudgeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``phonetic_judge``: train on ``speech``; write the judge and ``scalars.json``."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    speech = SpeechSet.load(inputs["speech"])
    both = TrainingFrames.load(speech, inputs["codec"], context.device).both
    batches: list[np.ndarray] = []
    for batch in both.batches(CHUNK):
        batches.append(features(*batch, speech.audio))
        context.report(sum(map(len, batches)), 2 * len(speech))
    x, y = np.concatenate(batches), np.tile(speech.labels(speech.emotions).numpy(), 2)
    analyses = {
        "lda": (LinearDiscriminantAnalysis(), of_linear),
        "qda": (QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=config.shrinkage), of_quadratic),
    }
    folds = GroupKFold(config.folds)
    groups = np.tile(np.arange(len(speech)), 2)  # keep both renditions of an utterance in one fold
    scores = {}
    for name, (analysis, _) in analyses.items():
        pipeline = make_pipeline(StandardScaler(), analysis)
        scores[name] = float(cross_val_score(pipeline, x, y, groups=groups, cv=folds).mean())
    analysis, convert = analyses[max(scores, key=lambda name: scores[name])]
    pipeline = make_pipeline(StandardScaler(), analysis).fit(x, y)
    PhoneticJudge(convert(pipeline[0], pipeline[1]), speech.emotions, speech.audio).save(out)
    (out / "scalars.json").write_text(json.dumps({f"accuracy_{name}": value for name, value in scores.items()}))

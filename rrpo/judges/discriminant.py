"""Gaussian discriminant analysis as plain arrays: one formula for the linear and the quadratic variant."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Discriminant:
    """log p(k | x) up to a constant = intercept_k + coef_k · z - |(z - means_k) whitening_k|² / 2, of z = (x - shift) / scale.

    The linear variant has zero whitening, the quadratic one zero coefficients.
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

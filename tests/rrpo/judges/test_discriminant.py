"""The stored arrays give scikit-learn's results for both kinds of analysis, also after saving and loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rrpo.judges.phonetic_judge import Discriminant, of_linear, of_quadratic

ANALYSES = {
    "linear": (LinearDiscriminantAnalysis(), of_linear),
    "quadratic": (QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=0.05), of_quadratic),
}


def drawn(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes of unequal size and spread, features of unequal units."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), 30 + 10 * np.arange(classes))
    z = rng.standard_normal((len(y), 4)) * (1 + 0.5 * y[:, None]) + rng.standard_normal((classes, 4))[y]
    return z * [1.0, 100.0, 1e-3, 5.0] + [0.0, 3000.0, 0.0, -40.0], y


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("kind", ANALYSES)
def test_probabilities_are_those_of_scikit_learn(kind: str, classes: int, tmp_path: Path) -> None:
    analysis, arrays_of = ANALYSES[kind]
    x, y = drawn(classes)
    fit: Any = make_pipeline(StandardScaler(), analysis).fit(x, y)
    discriminant = arrays_of(fit[0], fit[1])
    discriminant.save(tmp_path / "classifier.npz")
    loaded = Discriminant.load(tmp_path / "classifier.npz")
    far = np.concatenate([x, 10 * x])
    assert loaded.log_probs(far).shape == (len(far), classes)
    np.testing.assert_allclose(np.exp(loaded.log_probs(far)), fit.predict_proba(far), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(loaded.log_probs(far), discriminant.log_probs(far))


def test_two_classes_by_hand() -> None:
    """One feature, N(0, 1) and N(2, 4) after scaling, priors 1/4 and 3/4: the densities at x = 3, z = 1."""
    discriminant = Discriminant(
        shift=np.array([1.0]),
        scale=np.array([2.0]),
        coef=np.zeros((2, 1)),
        intercept=np.log([0.25, 0.75]) - np.log([1.0, 4.0]) / 2,
        means=np.array([[0.0], [2.0]]),
        whitening=np.array([[[1.0]], [[0.5]]]),
    )
    a, b = 0.25 * np.exp(-1 / 2), 0.75 / 2 * np.exp(-1 / 8)
    assert np.exp(discriminant.log_probs(np.array([[3.0]]))[0]) == pytest.approx([a / (a + b), b / (a + b)])

"""The cue model, its ideal observer, and raters."""

import numpy as np
import pytest

from rrpo.corpus.config import EMOTIONS
from rrpo.corpus.emotions import (
    CUES,
    INTENSITY,
    draw_cues,
    draw_votes,
    ideal_observer,
    log_likelihood,
    majority,
    means,
    offset,
)

N = 5000
LABELS = np.arange(N) % len(EMOTIONS)


def cues(spread: float = 1.0, language: str = "cmn") -> np.ndarray:
    return draw_cues(EMOTIONS, LABELS, [language] * N, spread, np.random.default_rng(0))[0]


def test_the_ideal_observer_is_right_nineteen_times_in_twenty_on_every_language():
    for language in ("cmn", "en", "de"):
        accuracy = (ideal_observer(cues(language=language), EMOTIONS, language).argmax(1) == LABELS).mean()
        assert 0.95 < accuracy < 0.97


def test_it_falls_with_the_spread_and_is_calibrated():
    posterior = ideal_observer(cues(), EMOTIONS, "cmn")
    assert np.allclose(posterior.sum(1), 1)
    assert posterior.max(1).mean() == pytest.approx((posterior.argmax(1) == LABELS).mean(), abs=0.015)
    blurred = ideal_observer(cues(2.0), EMOTIONS, "cmn", 2.0)
    assert (blurred.argmax(1) == LABELS).mean() < 0.8


def test_the_likelihood_is_the_gaussian_averaged_over_intensity():
    z = cues()[:3]
    s = np.linspace(*INTENSITY, 2001)
    for k in range(len(EMOTIONS)):
        distance = ((z[:, None] - s[:, None] * means(EMOTIONS)[k] - offset("en")) ** 2).sum(-1)
        expected = np.log(np.exp(-distance / 2).mean(1))
        np.testing.assert_allclose(log_likelihood(z, EMOTIONS, "en")[:, k], expected, atol=0.03)


def test_signs_follow_the_published_correlates():
    mu = {e: dict(zip(CUES, row, strict=True)) for e, row in zip(EMOTIONS, means(EMOTIONS), strict=True)}
    assert max(mu, key=lambda e: mu[e]["intensity"]) == max(mu, key=lambda e: mu[e]["tilt"]) == "angry"
    for cue in ("rate", "f0_level", "f0_range", "intensity", "tilt"):
        assert min(mu, key=lambda e: mu[e][cue]) == "sad"
    assert max(mu, key=lambda e: mu[e]["final_rise"]) == "surprised"
    assert max(mu, key=lambda e: mu[e]["tremor"]) == "fearful"
    assert mu["happy"]["f0_range"] > 0 > mu["fearful"]["f0_range"]
    assert not means(["neutral"]).any()


def test_votes_follow_the_posterior_and_noise_makes_raters_disagree():
    posterior = np.tile([0.7, 0.2, 0.1, 0, 0], (20000, 1))
    shares = np.bincount(draw_votes(posterior, 1, np.random.default_rng(0))[:, 0], minlength=5) / 20000
    np.testing.assert_allclose(shares, posterior[0], atol=0.02)
    z = cues()
    sharp, noisy = (
        draw_votes(ideal_observer(z, EMOTIONS, "cmn", temperature=t), 3, np.random.default_rng(0)) for t in (1, 3)
    )
    assert (majority(noisy) == LABELS).mean() < (majority(sharp) == LABELS).mean() < 0.96


def test_majority_and_ties_by_hand():
    votes = np.array([[0, 1, 1], [2, 2, 0], [3, 1, 4], [1, 0, 0]])
    assert majority(votes).tolist() == [1, 2, 3, 0]


def test_an_emotion_without_cues_is_refused():
    with pytest.raises(ValueError, match="no cue model"):
        means(["angry", "bored"])

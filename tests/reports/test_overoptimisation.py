"""Gao et al.'s form: known coefficients come back, and a turn out of range is not invented."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports.overoptimisation import fit

D = np.array([0.0, 0.3, 0.6, 0.9, 1.4, 2.0])


def gain(d: np.ndarray, a: float, b: float) -> np.ndarray:
    return d * (a - b * np.log(np.where(d > 0, d, 1)))


def test_known_coefficients_and_turning_point_come_back():
    found = fit(D, gain(D, 0.5, 0.6))
    assert found is not None
    assert (found.a, found.b, found.residual) == pytest.approx((0.5, 0.6, 0), abs=1e-12)
    assert found.peak == pytest.approx(math.exp(0.5 / 0.6 - 1))
    fine = np.linspace(0.01, 2, 2000)
    assert fine[gain(fine, 0.5, 0.6).argmax()] == pytest.approx(found.peak, abs=2e-3), "it is where the curve turns"


def test_no_turn_in_range_is_said_so():
    late = fit(D, gain(D, 2.0, 0.6))
    rising = fit(D, gain(D, 0.5, -0.1))
    assert late is not None
    assert rising is not None
    assert math.isnan(late.peak)
    assert math.isnan(rising.peak)


def test_residuals_are_reported_and_too_few_points_refused():
    bumps = gain(D, 0.5, 0.6) + np.array([0, 0.1, -0.1, 0.1, -0.1, 0.1])
    found = fit(D, bumps)
    assert found is not None
    assert 0.05 < found.residual < 0.12
    assert fit(D[:3], bumps[:3]) is None

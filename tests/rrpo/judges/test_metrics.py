"""Metrics against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from rrpo.judges import metrics

P = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
TARGETS = np.array([0, 1, 1, 2])


def test_accuracy_and_log_prob() -> None:
    assert metrics.accuracy(np.log(P), TARGETS) == 0.75
    expected = (np.log(0.7) + np.log(0.6) + np.log(0.25) + np.log(0.8)) / 4
    assert metrics.target_log_prob(np.log(P), TARGETS) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # two bins of (.5, 1]: confidences .7 .6 | .8 are right, .5 (first bin) is wrong
    expected = (abs(0 - 0.5) * 1 + abs(3 - (0.7 + 0.6 + 0.8))) / 4
    assert metrics.expected_calibration_error(np.log(P), TARGETS, bins=2) == pytest.approx(expected)


def test_calibration_error_is_zero_for_a_calibrated_judge() -> None:
    log_probs = np.log(np.tile([0.8, 0.2], (10, 1)))
    assert metrics.expected_calibration_error(log_probs, np.array([0] * 8 + [1] * 2)) == pytest.approx(0)


def test_certain_predictions_fall_into_the_last_bin() -> None:
    assert metrics.expected_calibration_error(np.array([[0.0, -np.inf]]), np.array([0])) == 0


@pytest.mark.parametrize(
    ("proxy", "gold", "flag", "expected"),
    [(1, 1, False, False), (1, 0, False, True), (1, 1, True, True), (0, 0, True, False), (0, 1, True, False)],
)
def test_hacked_needs_a_pleased_proxy_and_a_reason(proxy: int, gold: int, flag: bool, expected: bool) -> None:
    flags = np.array([[False, flag]])
    assert metrics.hack_rate(np.array([proxy]), np.array([gold]), np.array([1]), flags) == expected


def test_hack_rate_counts_all_samples() -> None:
    proxy, gold = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert metrics.hack_rate(proxy, gold, np.array([0, 0, 0, 1]), np.zeros((4, 2), bool)) == 0.25


def test_uptake_by_hand() -> None:
    targets = np.array([0, 0, 1, 1])
    flags = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], bool)
    # emotion 0: 2/2 - 1/2; emotion 1: 1/2 - 0/2
    assert metrics.shortcut_uptake(flags, targets) == pytest.approx(0.5)


def test_uptake_ignores_artefacts_that_follow_no_target() -> None:
    flags = np.tile([True, False, True], (6, 1))
    assert metrics.shortcut_uptake(flags, np.array([0, 1, 2, 0, 1, 2])) == 0


def test_uptake_excludes_emotions_without_prompts() -> None:
    flags = np.array([[1, 0, 1], [0, 1, 1]], bool)
    assert metrics.shortcut_uptake(flags, np.array([0, 1])) == 1
    assert metrics.shortcut_uptake(flags, np.array([-1, -1])) == 0, "neutral alone: no artefact is its own"


def test_an_emotion_has_its_own_artefact_whatever_the_classes_are() -> None:
    assert metrics.artefact_columns(["neutral", "angry", "fearful"]) == [-1, 0, 4]


def test_phone_error_rate_weighs_by_phones() -> None:
    assert metrics.phone_error_rate([["a"], ["x", "y", "z"]], [["b"], ["x", "y", "z"]]) == 0.25


def test_errors_say_what_was_given() -> None:
    with pytest.raises(ValueError, match="got lengths"):
        metrics.accuracy(np.log(P), TARGETS[:3])
    with pytest.raises(ValueError, match="at least one"):
        metrics.accuracy(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match="got 1 for 2"):
        metrics.phone_error_rate([["a"]], [["a"], ["b"]])
    with pytest.raises(ValueError, match="no phone"):
        metrics.phone_error_rate([[]], [[]])

"""Intervals of listeners' ratings: computed by hand, and with nominal coverage where clustering by raters only would fail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from synthetic import Fake, record

from ablations.grids import sensitivity
from ablations.stats.statistics import t_interval
from ablations.tracking.records import HUMAN
from reports.loading import Selection
from reports.opinion import interval
from reports.report import make
from rrpo.profiles import EMBEDDED


def draw(rng: np.random.Generator, raters: int, seeds: int, prompts: int = 10) -> tuple[np.ndarray, ...]:
    """Draw ratings with mean 0 of ``prompts`` prompts, with seeds rotating over prompts as on the page."""
    rater = np.repeat(np.arange(raters), prompts)
    prompt = np.tile(np.arange(prompts), raters)
    seed = (rng.integers(0, seeds, raters)[rater] + prompt) % seeds
    of_prompt = rng.normal(0, 0.3, prompts)
    effects = (
        rng.normal(0, 0.2, raters)[rater] + rng.normal(0, 0.3, seeds)[seed] + (of_prompt - of_prompt.mean())[prompt]
    )
    return effects + rng.normal(0, 0.8, len(rater)), rater, seed


def test_one_seed_is_student_t_of_the_raters_means():
    values, rater, seed = draw(np.random.default_rng(0), 6, 1)
    by_rater = values.reshape(6, 10).mean(axis=1)
    assert interval(values, rater, seed) == pytest.approx(t_interval(by_rater))


def test_raters_and_seeds_take_the_same_part():
    """Every rater rates every seed once; exchanging raters and seeds changes only n."""
    values = np.random.default_rng(1).normal(size=(4, 7)) + np.arange(4)[:, None]
    rater, seed = np.indices(values.shape)
    by_rater = interval(values.ravel(), rater.ravel(), seed.ravel())
    by_seed = interval(values.ravel(), seed.ravel(), rater.ravel())
    assert by_rater[:3] == pytest.approx(by_seed[:3])
    assert (by_rater.n, by_seed.n) == (4, 7)


def test_agreement_within_raters_and_within_seeds_adds_up():
    """Summed by rater, the residuals are 3 and -3; by seed 5, -2 and -3; by both 4, 0, -1 and 1, -2, -2."""
    estimate = interval([5, 5, 3, 2, 4, 1, 1], [0, 0, 0, 0, 1, 1, 1], [1, 1, 2, 3, 1, 2, 3])
    by_rater = (9 + 9) * 2 / 1
    by_seed = (25 + 4 + 9) * 3 / 2
    both = (16 + 0 + 1 + 1 + 4 + 4) * 6 / 5
    variance = by_rater + by_seed - both
    freedom = variance**2 / (by_rater**2 / 1 + by_seed**2 / 2)
    half = float(t.ppf(0.975, freedom)) * variance**0.5 / 7
    assert estimate == pytest.approx((3, 3 - half, 3 + half, 2))


def test_the_variance_is_at_least_that_of_either_clustering_and_so_are_its_degrees_of_freedom():
    """By rater the residuals are 1 and -1, by seed 1, 0 and -1, by both 2, -1, 0 and -1, 1, -1: 4 + 3 - 9.6 is negative."""
    estimate = interval([5, 2, 3, 2, 4, 2], [0, 0, 0, 1, 1, 1], [1, 2, 3, 1, 2, 3])
    half = float(t.ppf(0.975, 1)) * 2 / 6
    assert estimate == pytest.approx((3, 3 - half, 3 + half, 2))


def test_in_a_grid_of_settings_the_control_is_diffro_in_the_default_setting(monkeypatch: pytest.MonkeyPatch):
    """Of two persons, RRPO in the default setting gets 1 and 2 points more than DiffRO, and RRPO with beta .001 2 and 3 more."""
    scores = {"diffro@own": (1, 2), "rrpo@own": (2, 4), "oracle@own": (5, 5), "rrpo@beta0.001": (3, 5)}
    cells = {c.label: c for c in sensitivity(EMBEDDED, [1]) if c.label.endswith(("@own", "@beta0.001"))}
    points = record("diffro", 1, 0.5).points
    records = tuple(Fake(label, 1, points, params=cell.params()) for label, cell in cells.items())
    rated = [
        ("t", rater, arm, 1, 0, "sad", "sad", score, score)
        for arm, by_rater in scores.items()
        for rater, score in zip(("ann", "bob"), by_rater, strict=True)
    ]
    columns = ["test", "rater", "arm", "seed", "prompt", "target", "emotion", *HUMAN.values()]
    selection = Selection("sensitivity", records, dict.fromkeys(cells, 1), ())
    monkeypatch.setattr("reports.report.ratings.load", lambda selection: pd.DataFrame(rated, columns=columns))
    monkeypatch.setattr("reports.report.settings.plain", lambda selection: (selection, ""))
    (table,) = (sheet for sheet in make(selection).sheets if sheet.name == "listening")
    assert table.row("rrpo@own")["emos_difference"] == pytest.approx(t_interval([1.0, 2.0]))
    assert table.row("rrpo@beta0.001")["nmos_difference"] == pytest.approx(t_interval([2.0, 3.0]))
    assert table.row("diffro@own")["emos_difference"].n == 0  # type: ignore[union-attr]
    assert any(note.startswith("Mean ± half") and "Differences from diffro@own," in note for note in table.notes)
    column = [column.name for column in table.columns].index("human_emos")
    marked = [table.rows[i][0] for i, j in table.marks() if j == column]
    assert sorted(map(str, marked)) == ["rrpo@beta0.001", "rrpo@own"], "the oracle, which is rated best, is no rival"


def test_too_little_gives_no_bounds():
    assert interval([], [], []).n == 0
    single = interval([3.0, 4.0], ["ann", "ann"], [1, 2])
    assert single.mean == 3.5
    assert np.isnan(single.low)
    same = interval([3.0, 3.0], ["ann", "bob"], [1, 1])
    assert same.mean == 3.0
    assert np.isnan(same.low), "two who agree say nothing of a third"


@pytest.mark.parametrize(("raters", "seeds"), [(6, 8), (12, 3), (12, 8)])
def test_coverage_where_seeds_differ(raters: int, seeds: int):
    rng = np.random.default_rng(2)
    both, alone = 0, 0
    for _ in range(400):
        values, rater, seed = draw(rng, raters, seeds)
        estimate = interval(values, rater, seed)
        both += estimate.low <= 0 <= estimate.high
        estimate = interval(values, rater, np.zeros_like(seed))
        alone += estimate.low <= 0 <= estimate.high
    assert 0.93 <= both / 400 <= 0.99
    assert alone / 400 < 0.92

"""The words of a report: generated from the numbers, different when they differ, and the published numbers beside ours."""

from __future__ import annotations

import pandas as pd
import pytest
from test_tables import Fake, grid, record

from ablations.grids import rm, shortcut
from reports import effects, published
from reports.store import Selection
from reports.words import methods, verdict
from rrpo.profiles import SMOKE


def test_the_verdict_says_what_was_found():
    selection = grid()
    first, second, third = verdict(selection, effects.rows(selection.records, selection.looks)[0])
    assert first.startswith("RRPO differs from DiffRO in gold gain at matched KL by +5.7 [")
    assert "over 4 seeds (paired t, Holm p = 0.0" in first
    assert first.endswith(": better.")
    assert "LS +4." in second
    assert "Adv" in second
    assert "phone error rate" not in third, "it was not measured"
    assert "gold accuracy +11.5 [" in third
    assert third.endswith("no human has listened.")


def test_an_interim_verdict_says_so():
    selection = grid(looks=(8,))
    first, *_ = verdict(selection, effects.rows(selection.records, selection.looks)[0])
    assert "an interim estimate without a test" in first
    assert "Holm" not in first


def test_a_grid_without_the_pair_says_nothing_about_it():
    one = Selection("rm", (record("ls", 1, 0.0),), {"ls": 1}, ())
    first, *_ = verdict(one, [])
    assert first == (
        "In no seed of this grid is the gold gain at matched KL known of both RRPO and DiffRO, so nothing is said about their "
        "difference."
    )


def test_of_reward_models_alone_no_policy_is_spoken_of():
    """The real grid, which holds both RRPO and DiffRO."""
    cells = rm(SMOKE, [1, 2])
    records = tuple(Fake(c.label, c.seed, pd.DataFrame(), scalars={"rm_ece": 0.1}, params=c.params()) for c in cells)
    selection = Selection("rm", records, dict.fromkeys((c.label for c in cells), 2), (2,))
    first, second, _ = verdict(selection, [])
    assert first == ("Reward models alone: no policy was optimised, so nothing is said about their difference.")
    assert second == "It holds 22 cells of 11 arms over 2 seeds."
    text = methods(selection)
    assert "Reward models alone: no policy was optimised. Intervals are" in text
    for word in ("optimised the policy", "family", "roll-outs", "gold gain"):
        assert word not in text


def test_methods_name_the_family_that_is_there():
    assert "Adv, main effect; RRPO - DiffRO; paired t" in methods(grid())
    assert "with the whole family; beside it TOST" in methods(grid())
    few = [r for r in grid().records if r.label in ("diffro", "ls", "rrpo")]
    text = methods(Selection("x", tuple(few), dict.fromkeys(("diffro", "ls", "rrpo"), 4), (4,)))
    assert "of which this grid has not LS, main effect; EAM, main effect; Adv, main effect; beside it" in text
    cells = shortcut(SMOKE, [1])
    points = record("x", 1, 0.0).points
    records = tuple(Fake(c.label, 1, points, scalars={}, params=c.params()) for c in cells)
    text = methods(Selection("shortcut", records, dict.fromkeys((c.label for c in cells), 1), (5,)))
    family = "LS, added to DiffRO; EAM, added to DiffRO; Adv, added to DiffRO; RRPO - DiffRO"
    assert f"In each setting, secondary: {family}; paired t on seeds, Holm over 4" in text
    assert "factorial" not in text


def test_methods_tell_what_was_done():
    text = methods(grid())
    for word in (
        "32 cells",
        "8 arms",
        "4 seeds (0 to 3)",
        "140 steps",
        "32 roll-outs",
        "planned numbers of seeds (4)",
        "Achieved corr",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.01, 0.03, "same"), (-0.03, -0.01, "opposite"), (-0.01, 0.03, "undecided")]
)
def test_direction_of_a_published_difference(low: float, high: float, word: str):
    claim = next(c for c in published.claims() if c.text == "E-MOS")
    assert published.direction(claim, low, high) == word


def test_fewer_phone_errors_stand_for_more_naturalness():
    """N-MOS of DiffRO lies below SFT's: more phone errors than SFT are the same direction."""
    claim = next(c for c in published.claims() if c.text == "N-MOS")
    assert claim.arms == ("diffro", "sft")
    assert claim.published == pytest.approx(-0.11)
    assert published.direction(claim, 0.05, 0.1) == "same"


def test_published_rows_are_those_that_the_grid_can_speak_about():
    made = published.sheet(grid().records)
    assert made is not None
    assert {row[0] for row in made.rows} == {"E-MOS"}
    rm = [
        Fake(arm, 1, record("x", 1, 0.0).points, scalars={"rm_accuracy_test_en": a})
        for arm, a in (("diffro", 0.5), ("ls", 0.6))
    ]
    found = published.sheet(rm)
    assert found is not None
    (row,) = [row for row in found.rows if row[0] == "RM accuracy, IEMOCAP"]
    assert row[1:5] == ("RRPO, arXiv 2512.04552", "ls - diffro", "66.8 against 66.0 %", "+0.8 points")
    assert row[6].mean == pytest.approx(0.1)  # type: ignore[union-attr]

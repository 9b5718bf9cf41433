"""Looks at the results: which invocations make one, and which are pilots or tuning."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ablations.components import factorial, singles
from ablations.invocations import Invocation, ahead, looks, planned_seeds

FACTORIAL = factorial()
SETTINGS = [f"{arm}@{place}" for place in ("a", "b") for arm in singles()]
DEV, FIVE, EIGHT = (1000, 1001), tuple(range(1, 6)), tuple(range(1, 9))
HALF, REST = FACTORIAL[:4], FACTORIAL[4:]


def asked(*given: tuple[Sequence[str], Sequence[int], Sequence[int]]) -> list[Invocation]:
    return [Invocation("", "", "", tuple(arms), tuple(seeds), tuple(declared)) for arms, seeds, declared in given]


@pytest.mark.parametrize(
    ("given", "expected", "before", "seeds"),
    [
        ([(FACTORIAL, DEV, ()), (FACTORIAL, EIGHT, ())], [8], 1, 8),
        ([(FACTORIAL, EIGHT, ()), (FACTORIAL, DEV, (2, 10))], [8], 1, 8),
        ([(FACTORIAL, DEV, ())], [2], 1, 2),
        ([(["diffro"], FIVE, ()), (FACTORIAL, EIGHT, (8, 12))], [8, 12], 2, 8),
        ([(FACTORIAL, FIVE, ()), (["rrpo"], EIGHT, ())], [5], 1, 5),
        ([(HALF, EIGHT, ()), (REST, EIGHT, ()), (FACTORIAL, range(1, 13), ())], [8, 12], 1, 12),
        ([(["sft", "rrpo"], FIVE, ()), (["sft"], EIGHT, ())], [5, 8], 1, 8),
        ([(["diffro@a", "rrpo@b"], (1, 2), ()), (SETTINGS, FIVE, ())], [5], 1, 5),
        ([(["diffro@a", "rrpo@a"], (1, 2), ()), (["diffro@a", "rrpo@a"], FIVE, ())], [2, 5], 1, 5),
        ([], [], 0, 0),
    ],
    ids=[
        "development first",
        "development later",
        "development alone",
        "pilot",
        "one arm more",
        "halves",
        "no family",
        "pilot of settings",
        "two arms of a setting",
        "none",
    ],
)
def test_looks_are_at_seeds_for_which_the_primary_family_is_planned(given, expected, before, seeds):
    found = asked(*given)
    assert (looks(found), ahead(found), planned_seeds(found)) == (expected, before, seeds)

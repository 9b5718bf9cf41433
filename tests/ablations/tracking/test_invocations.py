"""The planned number of seeds: which invocations make one, and which are pilots or tuning."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ablations.components import factorial, singles
from ablations.tracking.invocations import Invocation, planned_seeds

FACTORIAL = factorial()
SETTINGS = [f"{arm}@{place}" for place in ("a", "b") for arm in singles()]
DEV, FIVE, EIGHT = (1000, 1001), tuple(range(1, 6)), tuple(range(1, 9))
HALF, REST = FACTORIAL[:4], FACTORIAL[4:]


def asked(*given: tuple[Sequence[str], Sequence[int]]) -> list[Invocation]:
    return [Invocation("", "", "", tuple(arms), tuple(seeds)) for arms, seeds in given]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(FACTORIAL, DEV), (FACTORIAL, EIGHT)], [8]),
        ([(FACTORIAL, EIGHT), (FACTORIAL, DEV)], [8]),
        ([(FACTORIAL, DEV)], [2]),
        ([(["diffro"], FIVE), (FACTORIAL, EIGHT)], [8]),
        ([(FACTORIAL, FIVE), (["rrpo"], EIGHT)], [5]),
        ([(HALF, EIGHT), (REST, EIGHT), (FACTORIAL, range(1, 13))], [8, 12]),
        ([(FACTORIAL, FIVE), (FACTORIAL, range(6, 9))], [5, 8]),
        ([(["sft", "rrpo"], FIVE), (["sft", "rrpo"], EIGHT)], [5, 8]),
        ([(["diffro@a", "rrpo@b"], (1, 2)), (SETTINGS, FIVE)], [5]),
        ([(["diffro@a", "rrpo@a"], (1, 2)), (["diffro@a", "rrpo@a"], FIVE)], [2, 5]),
        ([], []),
    ],
    ids=[
        "development first",
        "development later",
        "development alone",
        "pilot",
        "one arm more",
        "halves",
        "more seeds",
        "no family",
        "pilot of settings",
        "two arms of a setting",
        "none",
    ],
)
def test_seeds_count_where_the_family_is_planned(given: list, expected: list[int]):
    assert planned_seeds(asked(*given)) == expected


def test_a_part_of_a_grid_is_no_plan_of_the_grid():
    assert planned_seeds(asked((["diffro", "rrpo"], EIGHT))) == [8]
    assert planned_seeds(asked((["diffro", "rrpo"], EIGHT)), FACTORIAL) == []

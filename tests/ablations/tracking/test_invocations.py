"""The planned number of seeds: which invocations count, and which are pilots or tuning."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from ablations.components import factorial, singles
from ablations.grids import full
from ablations.tracking.invocations import Invocation, invocation, of_kind, plan_invocation, planned_seeds
from rrpo.profiles import SMOKE

FACTORIAL = factorial()
SETTINGS = [f"{arm}@{place}" for place in ("a", "b") for arm in singles()]
DEV, FIVE, EIGHT = (1000, 1001), tuple(range(1, 6)), tuple(range(1, 9))
HALF, REST = FACTORIAL[:4], FACTORIAL[4:]


def invocations(*plans: tuple[Sequence[str], Sequence[int]]) -> list[Invocation]:
    return [Invocation("", "", dict.fromkeys(arms, tuple(seeds))) for arms, seeds in plans]


@pytest.mark.parametrize(
    ("plans", "expected"),
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
def test_seeds_count_where_the_family_is_planned(plans: list, expected: list[int]):
    assert planned_seeds(invocations(*plans)) == expected


def test_a_part_of_a_grid_is_no_plan_of_the_grid():
    assert planned_seeds(invocations((["diffro", "rrpo"], EIGHT))) == [8]
    assert planned_seeds(invocations((["diffro", "rrpo"], EIGHT)), FACTORIAL) == []


def test_arms_on_fewer_seeds_neither_hold_a_plan_up_nor_are_planned_elsewhere():
    plan = plan_invocation(full(SMOKE, EIGHT))
    assert {arm: seeds for arm, seeds in plan.plan.items() if seeds != EIGHT} == {
        "placebo": (1, 2, 3),
        "content_only": (1, 2, 3),
    }
    assert plan.params()["fewer"] == "placebo:1,2,3;content_only:1,2,3"
    assert len(plan.plan) == 15
    assert planned_seeds([plan]) == [8]
    (tuning,) = of_kind([plan_invocation(full(SMOKE, (998, 999, 1000, 1001)))], development=True)
    assert (tuning.seeds, tuning.plan["placebo"]) == ((1000, 1001), (1000,))


def test_a_plan_is_read_back_from_its_run():
    for cells in (full(SMOKE, EIGHT), full(SMOKE, (1, 2))):
        plan = plan_invocation(cells)
        run = SimpleNamespace(
            data=SimpleNamespace(params=plan.params(), tags={"profile": plan.profile, "world_hash": plan.world_hash}),
        )
        assert invocation(run) == plan
    assert "fewer" not in plan_invocation(full(SMOKE, (1, 2))).params()

"""What a plan says of the power of its seeds, against a textbook value."""

import pytest

from ablations.components import factorial
from ablations.power import power
from ablations.prospects import DEFAULT_SPREAD, prospects

FACTORIAL = factorial()


def test_the_effect_named_has_the_power_named() -> None:
    first, tested = prospects(FACTORIAL, 8, None)
    least = float(first.split("effect of ")[1].split()[0]) / 100
    assert power(least, DEFAULT_SPREAD, 8, 0.05 / 4) == pytest.approx(0.8, abs=0.02)
    assert "as in a former grid" in first
    assert "Adv, main effect; RRPO - DiffRO; estimates alone: clean success" in tested


def test_few_seeds_get_a_warning() -> None:
    assert any("WARNING" in line and "8 seeds" in line for line in prospects(FACTORIAL, 1, None))
    assert any("undecided" in line for line in prospects(FACTORIAL, 3, None))
    assert prospects(FACTORIAL, 1, None)[0].startswith("primary tests: none")
    assert not any("WARNING" in line for line in prospects(FACTORIAL, 12, 0.01))


def test_looks_share_alpha_and_a_number_that_was_not_declared_has_no_test() -> None:
    first, *_ = prospects(FACTORIAL, 5, None, (5, 8))
    assert "at 0.00329, the strictest" in first, "0.0132 of 0.05 is spent at five of eight"
    assert prospects(FACTORIAL, 5, None, (8,)) == ["primary tests: none at 5 seeds; declared at 8"]


def test_an_early_look_at_next_to_no_alpha_has_no_test_and_says_so() -> None:
    for looks in ((2, 40), (2, 10_000)):
        (line,) = prospects(FACTORIAL, 2, None, looks)
        assert "no test is possible at 2 seeds" in line


def test_a_grid_without_the_family_gets_none() -> None:
    assert prospects(("sft", "diffro"), 8, None) == []

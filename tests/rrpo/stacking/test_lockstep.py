"""Programs in lockstep: order, batched answers, errors, signals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest

from rrpo.stacking import lockstep
from rrpo.stacking.lockstep import Ask


class Answers:
    """Add up the arguments of a batch of requests, and record them."""

    def __init__(self) -> None:
        self.log: list[tuple[Hashable, list[int], bool]] = []

    def __call__(
        self, kind: Hashable, programs: list[int], arguments: list[tuple[Any, ...]], *, others: bool
    ) -> Sequence[int]:
        self.log.append((kind, programs, others))
        if kind == "error":
            raise ZeroDivisionError
        return [sum(value for (value,) in arguments)] * len(programs)


def asking(*questions: tuple[str, int]) -> Callable[[Ask], list[int]]:
    return lambda ask: [ask(kind, value) for kind, value in questions]


def test_equal_questions_are_answered_together() -> None:
    answers = Answers()
    results = lockstep.run([asking(("a", 1), ("b", 5)), asking(("a", 2)), asking(("a", 3), ("b", 7))], answers)
    assert results == [[6, 12], [6], [6, 12]]
    assert answers.log == [("a", [0, 1, 2], False), ("b", [0, 2], False)]


def test_the_most_frequent_kind_of_request_is_served_first() -> None:
    answers = Answers()
    lockstep.run([asking(("a", 1), ("b", 1)), asking(("b", 1)), asking(("b", 1))], answers)
    assert answers.log == [("b", [1, 2], True), ("a", [0], False), ("b", [0], False)]


def test_an_error_reaches_every_program_that_made_the_request() -> None:
    def careful(ask: Ask) -> str:
        try:
            ask("error", 0)
        except ZeroDivisionError:
            return "caught"
        return "none"

    first, second, third = lockstep.run([careful, asking(("error", 0)), asking(("a", 4))], Answers())
    assert first == "caught"
    assert isinstance(second, ZeroDivisionError)
    assert third == [4]


def test_one_program_runs_at_a_time() -> None:
    inside: list[int] = []

    def program(ask: Ask) -> None:
        for _ in range(20):
            inside.append(1)
            assert len(inside) == 1
            inside.pop()
            ask("a", 0)

    assert lockstep.run([program] * 4, Answers()) == [None] * 4


def test_an_exception_in_the_caller_ends_the_programs() -> None:
    """Like SIGTERM, which raises SystemExit in the main thread; each program cleans up."""
    cleaned = []

    def program(ask: Ask) -> None:
        try:
            ask("a", 1)
            ask("a", 1)
        finally:
            cleaned.append(1)

    def answer(kind: Hashable, programs: list[int], arguments: list[tuple[Any, ...]], *, others: bool) -> Sequence[int]:
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        lockstep.run([program] * 3, answer)
    assert cleaned == [1, 1, 1]

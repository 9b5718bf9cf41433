"""Several programs in lockstep, so that what they ask at the same point can be answered together.

Each program runs in a thread of its own, but one at a time: until it asks, or ends. When all have asked, the question that most
of them ask is answered for those at once, by the caller's thread; the others wait for theirs. The order is the same in every
run. Imports no torch.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol


class Ask(Protocol):
    """How a program asks; raises what went wrong with the answer."""

    def __call__(self, kind: Hashable, *arguments: Any) -> Any:
        """The answer. Questions of one ``kind`` are answered together."""


class Answer(Protocol):
    """How questions are answered."""

    def __call__(
        self, kind: Hashable, who: list[int], arguments: list[tuple[Any, ...]], *, others: bool
    ) -> Sequence[Any]:
        """An answer to each of the programs with the numbers ``who``, in that order; ``others`` are asking something else."""


class _Question(NamedTuple):
    kind: Hashable
    arguments: tuple[Any, ...]


class _Raise(NamedTuple):
    error: BaseException


class _End(NamedTuple):
    result: Any


def run(
    programs: Sequence[Callable[[Ask], Any]],
    answer: Answer,
) -> list[Any]:
    """What each program returned, or the exception that ended it.

    Args:
        programs: What is run.
        answer: Answers one kind of question; an exception that it raises is raised in all that asked.
    """
    threads = [_Program(program) for program in programs]
    results: list[Any] = [None] * len(threads)
    asked: dict[int, _Question] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(threads)))
    try:
        while answers:
            for who, given in answers.items():
                said = threads[who].go_on(given)
                if isinstance(said, _Question):
                    asked[who] = said
                else:
                    results[who] = said.result
            answers = _together(asked, answer)
    except BaseException as error:  # a signal, for instance: the programs clean up as if it had reached them
        for thread in threads:
            thread.end(error)
        raise
    return results


def _together(asked: dict[int, _Question], answer: Answer) -> dict[int, Any]:
    """Answers the most frequent kind of question, which then is no longer ``asked``; empty when there is none."""
    if not asked:
        return {}
    ((kind, _),) = Counter(question.kind for _, question in sorted(asked.items())).most_common(1)
    who = sorted(place for place, question in asked.items() if question.kind == kind)
    arguments = [asked.pop(place).arguments for place in who]
    try:
        found = answer(kind, who, arguments, others=bool(asked))
    except Exception as error:
        found = [_Raise(error)] * len(who)
    return dict(zip(who, found, strict=True))


class _Program:
    """A thread that waits for its turn."""

    def __init__(self, program: Callable[[Ask], Any]) -> None:
        self._given: SimpleQueue[Any] = SimpleQueue()
        self._said: SimpleQueue[_Question | _End] = SimpleQueue()
        self._its_turn = self._ended = False
        self._thread = threading.Thread(target=self._run, args=(program,), daemon=True)
        self._thread.start()

    def go_on(self, given: Any) -> _Question | _End:
        """Its next question, or its end."""
        self._its_turn = True
        self._given.put(given)
        return self._hear()

    def end(self, error: BaseException) -> None:
        """Raises ``error`` in the program wherever it asks, until it has ended."""
        if self._its_turn:  # interrupted in the middle of it
            self._hear()
        while not self._ended:
            self.go_on(_Raise(error))

    def _hear(self) -> _Question | _End:
        said = self._said.get()
        self._its_turn = False
        if isinstance(said, _End):
            self._ended = True
            self._thread.join()
        return said

    def _run(self, program: Callable[[Ask], Any]) -> None:
        try:
            first = self._given.get()
            result = first.error if isinstance(first, _Raise) else program(self._ask)
        except BaseException as error:
            result = error
        self._said.put(_End(result))

    def _ask(self, kind: Hashable, *arguments: Any) -> Any:
        self._said.put(_Question(kind, arguments))
        given = self._given.get()
        if isinstance(given, _Raise):
            raise given.error
        return given

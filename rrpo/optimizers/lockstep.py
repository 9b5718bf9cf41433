"""Run several programs in lockstep, so that their requests can be served in batches.

Each program has its own thread, but only one runs at a time, until it makes a request or ends. When all programs have a pending
request, the caller's thread serves the most frequent kind of request for all programs that made it; the others keep waiting. The
order is deterministic. Importing this module does not import torch.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol


class Ask(Protocol):
    """Function with which a program makes a request. Raises the exception that serving the request raised."""

    def __call__(self, kind: Hashable, *arguments: Any) -> Any:
        """Return the answer. Requests of one ``kind`` are served together."""


class Answer(Protocol):
    """Function that serves requests."""

    def __call__(
        self, kind: Hashable, who: list[int], arguments: list[tuple[Any, ...]], *, others: bool
    ) -> Sequence[Any]:
        """Return one answer for each program in ``who``, in this order. ``others``: other requests are pending."""


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
    """Run the programs and return the result of each, or the exception that ended it.

    Args:
        programs: The functions to run.
        answer: Serves one kind of request; an exception that it raises is raised in all programs that made the request.
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
    except BaseException as error:  # e.g. a signal: raise it in the programs too, so that they clean up
        for thread in threads:
            thread.end(error)
        raise
    return results


def _together(asked: dict[int, _Question], answer: Answer) -> dict[int, Any]:
    """Serve the most frequent kind of request and remove it from ``asked``. Return answers by program; empty if none is
    pending."""
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
    """A program in its own thread, which waits for its turn."""

    def __init__(self, program: Callable[[Ask], Any]) -> None:
        self._given: SimpleQueue[Any] = SimpleQueue()
        self._said: SimpleQueue[_Question | _End] = SimpleQueue()
        self._its_turn = self._ended = False
        self._thread = threading.Thread(target=self._run, args=(program,), daemon=True)
        self._thread.start()

    def go_on(self, given: Any) -> _Question | _End:
        """Continue with an answer; return the next request, or the end."""
        self._its_turn = True
        self._given.put(given)
        return self._hear()

    def end(self, error: BaseException) -> None:
        """Raise ``error`` at each request of the program until it has ended."""
        if self._its_turn:  # the interrupt came while the program was running: wait for its request
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

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
        self, kind: Hashable, programs: list[int], arguments: list[tuple[Any, ...]], *, others: bool
    ) -> Sequence[Any]:
        """Return one answer for each program in ``programs``, in this order. ``others``: other requests are pending."""


class _Request(NamedTuple):
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
    pending: dict[int, _Request] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(threads)))
    try:
        while answers:
            for index, reply in answers.items():
                message = threads[index].resume(reply)
                if isinstance(message, _Request):
                    pending[index] = message
                else:
                    results[index] = message.result
            answers = _serve(pending, answer)
    except BaseException as error:  # e.g. a signal: raise it in the programs too, so that they clean up
        for thread in threads:
            thread.end(error)
        raise
    return results


def _serve(pending: dict[int, _Request], answer: Answer) -> dict[int, Any]:
    """Serve the most frequent kind of request and remove it from ``pending``. Return answers by program; empty if none is
    pending."""
    if not pending:
        return {}
    ((kind, _),) = Counter(request.kind for _, request in sorted(pending.items())).most_common(1)
    programs = sorted(index for index, request in pending.items() if request.kind == kind)
    arguments = [pending.pop(index).arguments for index in programs]
    try:
        answers = answer(kind, programs, arguments, others=bool(pending))
    except Exception as error:
        answers = [_Raise(error)] * len(programs)
    return dict(zip(programs, answers, strict=True))


class _Program:
    """A program in its own thread, which waits for its turn."""

    def __init__(self, program: Callable[[Ask], Any]) -> None:
        self._replies: SimpleQueue[Any] = SimpleQueue()
        self._messages: SimpleQueue[_Request | _End] = SimpleQueue()
        self._running = self._ended = False
        self._thread = threading.Thread(target=self._run, args=(program,), daemon=True)
        self._thread.start()

    def resume(self, reply: Any) -> _Request | _End:
        """Continue with an answer; return the next request, or the end."""
        self._running = True
        self._replies.put(reply)
        return self._receive()

    def end(self, error: BaseException) -> None:
        """Raise ``error`` at each request of the program until it has ended."""
        if self._running:  # the interrupt came while the program was running: wait for its request
            self._receive()
        while not self._ended:
            self.resume(_Raise(error))

    def _receive(self) -> _Request | _End:
        message = self._messages.get()
        self._running = False
        if isinstance(message, _End):
            self._ended = True
            self._thread.join()
        return message

    def _run(self, program: Callable[[Ask], Any]) -> None:
        try:
            start = self._replies.get()
            result = start.error if isinstance(start, _Raise) else program(self._ask)
        except BaseException as error:
            result = error
        self._messages.put(_End(result))

    def _ask(self, kind: Hashable, *arguments: Any) -> Any:
        self._messages.put(_Request(kind, arguments))
        reply = self._replies.get()
        if isinstance(reply, _Raise):
            raise reply.error
        return reply

"""The one error a user's input can cause: what is wrong, what was given, how to put it right."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from the command line or the file system. Ends a command with status 2 before anything is written."""

    def __init__(self, what: str, *, got: object, fix: str) -> None:
        super().__init__(f"{what}\n  got: {got}\n  fix: {fix}")


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """``name``, if it is one of ``known``.

    Raises InputError with all choices otherwise.
    """
    names = list(known)
    if name not in names:
        raise InputError(f"there is no {kind} of that name", got=name, fix=f"use one of: {', '.join(names)}")
    return name


def positive(flag: str, value: int) -> int:
    """``value``, if it is a positive count."""
    if value < 1:
        raise InputError(f"{flag} must be a positive count", got=value, fix=f"give {flag} 1 or more")
    return value

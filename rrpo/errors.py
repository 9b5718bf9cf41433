"""The error raised for bad user input (what is wrong, what was given, how to fix it), and checks that raise it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class InputError(ValueError):
    """Bad input from the command line or the file system. It ends a command with status 2."""

    def __init__(self, what: str, *, got: object, fix: str) -> None:
        super().__init__(f"{what}\n  got: {got}\n  fix: {fix}")


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``known``.

    Raises:
        InputError: It is not; the message lists all choices.
    """
    names = list(known)
    if name not in names:
        raise InputError(f"there is no {kind} of that name", got=name, fix=f"use one of: {', '.join(names)}")
    return name


def positive(flag: str, value: int) -> int:
    """Return ``value`` if it is positive.

    Raises:
        InputError: It is not.
    """
    if value < 1:
        raise InputError(f"{flag} must be positive", got=value, fix=f"give {flag} 1 or more")
    return value


def writable(
    folder: Path,
    file: Path | None = None,
    *,
    what: str = "output cannot be written there",
    fix: str = "give another --out",
) -> Path:
    """Create the folder if it is missing, and return it.

    Raises:
        InputError: Nothing, or not that ``file``, can be written; it says ``what`` is wrong and how to ``fix`` it.
    """
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if file is not None and file.is_dir():
            raise IsADirectoryError(f"{file} is a folder")
    except OSError as error:
        raise InputError(what, got=f"{folder}: {error}", fix=fix) from None
    return folder

"""Change a profile by dotted paths, ``optimize.beta=0.01``, as ``--set`` and `rrpo.train` take them.

A changed profile has a name of its own, ``embedded+optimize.beta=0.01``, so that its cells are never pooled with others; a value
that the profile has already changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from rrpo.errors import InputError
from rrpo.pipeline.stages import Stage
from rrpo.profiles import Profile

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
"""What a value of each type looks like, for messages."""
NEAREST = 4
"""Names suggested for an unknown one."""


def assignments(texts: Iterable[str]) -> dict[str, str]:
    """``KEY=VALUE`` each -> value by key.

    Raises:
        InputError: A text has no ``=``, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise InputError("--set takes KEY=VALUE", got=text, fix="for example --set optimize.beta=0.01")
        if key in found:
            raise InputError("a setting is given twice", got=f"{key}={found[key]} and {text}", fix="give it once")
        found[key] = value
    return found


def changed(profile: Profile, values: Mapping[str, Any]) -> Profile:
    """The profile with ``values`` (by dotted path; texts are read by the field's type), under a name that tells them.

    Raises:
        InputError: An unknown path, with the nearest ones; a value of another type, or out of its range.
    """
    known = _leaves(profile)
    wanted = {path: _read(path, given, known) for path, given in values.items()}
    new = {path: value for path, value in wanted.items() if value != known[path][1]}
    if not new:
        return profile
    said = "+".join(f"{path}={text(value)}" for path, value in sorted(new.items()))
    try:
        made: Profile = _replaced(profile, {tuple(path.split(".")): value for path, value in new.items()})
    except ValueError as error:
        fix = "give a value in that range, or leave the setting out"
        raise InputError(f"a setting is out of its range: {error}", got=said, fix=fix) from None
    return dataclasses.replace(made, name=f"{profile.name}+{said}")


def differences(before: Profile, after: Profile) -> dict[str, tuple[str, str]]:
    """Path -> both values, as text, where two profiles differ."""
    old, new = _leaves(before), _leaves(after)
    both = [path for path in old if path in new]
    return {path: (text(old[path][1]), text(new[path][1])) for path in both if old[path][1] != new[path][1]}


def check_used(profile: Profile, values: Mapping[str, Any], stages: Callable[[Profile], Iterable[Stage]]) -> None:
    """Refuse a setting without which the same stages would be run.

    Raises:
        InputError: A setting changes none of ``stages(profile)``: the arms set that value themselves, or nothing asks for it.
    """
    whole = changed(profile, values)
    keys = {stage.key for stage in stages(whole)}
    for path, (before, after) in differences(profile, whole).items():
        try:
            without = changed(profile, {name: value for name, value in values.items() if name != path})
        except InputError:  # the others are out of range without it, so it matters
            continue
        if {stage.key for stage in stages(without)} == keys:
            raise InputError(
                f"the setting {path} changes nothing here",
                got=f"{path}={after} (is {before})",
                fix="leave it out: every arm sets it itself, or nothing that is run asks for it",
            )


def text(value: Any) -> str:
    """A value as people write it: ``true``, ``none``, ``2.0,1.0``."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(text, value)) if isinstance(value, (tuple, list)) else str(value)


def _leaves(profile: Profile) -> dict[str, tuple[Any, Any]]:
    """Every path that can be set -> its annotated type and value."""
    return {path: found for path, *found in _walk(profile, Profile, "") if path != "name"}  # type: ignore[misc]


def _walk(value: Any, kind: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value))
        for field in dataclasses.fields(value):
            if field.metadata.get("identity", True):
                yield from _walk(getattr(value, field.name), hints[field.name], f"{path}.{field.name}".strip("."))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, typing.get_args(kind)[1], f"{path}.{key}")
    else:
        yield path, kind, value


def _read(path: str, given: Any, known: Mapping[str, tuple[Any, Any]]) -> Any:
    if path not in known:
        same = [name for name in known if name.rpartition(".")[2] == path.rpartition(".")[2]]
        near = dict.fromkeys([*get_close_matches(path, known, NEAREST, 0.5), *same])
        fix = f"nearest: {', '.join(list(near)[:NEAREST])}" if near else "the fields of rrpo.Profile are the names"
        raise InputError("there is no setting of that name", got=path, fix=fix)
    kind = known[path][0]
    try:
        return _parsed(kind, given if isinstance(given, str) else text(given))
    except ValueError:
        example = f"for example {path}={text(known[path][1])}, as it is"
        raise InputError(f"{path} takes {_word(kind)}", got=text(given), fix=f"give {_word(kind)}, {example}") from None


def _parsed(kind: Any, given: str) -> Any:
    """A text as a value of an annotated type. Raises ValueError where it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if given.lower() == "none":
            return None
        (kind,) = (argument for argument in arguments if argument is not types.NoneType)
        return _parsed(kind, given)
    if origin is tuple:
        return tuple(_parsed(arguments[0], part.strip()) for part in given.split(",") if part.strip())
    if kind is bool and given.lower() in ("true", "false"):
        return given.lower() == "true"
    if kind is float and not math.isfinite(float(given)):
        raise ValueError(given)
    if kind not in (int, float, str):
        raise ValueError(given)
    return kind(given)


def _word(kind: Any) -> str:
    arguments = [argument for argument in typing.get_args(kind) if argument not in (types.NoneType, Ellipsis)]
    if typing.get_origin(kind) is tuple:
        return f"{_word(arguments[0])}, or several with commas"
    if arguments:
        return f"{_word(arguments[0])}, or none"
    return WORDS.get(kind, "a value that no text can give")


def _replaced(node: Any, values: Mapping[tuple[str, ...], Any]) -> Any:
    """A config with the values at these paths."""
    children: dict[str, dict[tuple[str, ...], Any]] = {}
    for (head, *tail), value in values.items():
        children.setdefault(head, {})[tuple(tail)] = value
    of = node.__getitem__ if isinstance(node, Mapping) else lambda name: getattr(node, name)
    new = {name: below[()] if () in below else _replaced(of(name), below) for name, below in children.items()}
    return {**node, **new} if isinstance(node, Mapping) else dataclasses.replace(node, **new)

"""Change a profile by dotted paths, ``optimize.beta=0.01``, for ``--set`` and `rrpo.train`.

A changed profile has its own name, ``embedded+optimize.beta=0.01``, so that its cells are never pooled with others. A value
that equals the profile's changes nothing.
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
from rrpo.plugins import Choice
from rrpo.profiles import Profile

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
"""Description of each type's values, for messages."""
NEAREST = 4
"""Maximum number of suggestions for an unknown name."""


def assignments(
    texts: Iterable[str], flag: str = "--set", form: str = "KEY=VALUE", example: str = "optimize.beta=0.01"
) -> dict[str, str]:
    """Parse the texts ``KEY=VALUE`` of an option into a dict; ``form`` and ``example`` are for messages.

    Raises:
        InputError: A text has no ``=``, or a key is given twice.
    """
    settings: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise InputError(f"{flag} takes {form}", got=text, fix=f"for example {flag} {example}")
        if key in settings:
            raise InputError(
                f"{flag} is given twice for {key}", got=f"{key}={settings[key]} and {text}", fix="give it once"
            )
        settings[key] = value
    return settings


def changed(profile: Profile, values: Mapping[str, Any]) -> Profile:
    """Return the profile with ``values`` by dotted path (text is parsed by the field's type), under a name that lists the
    changes.

    Raises:
        InputError: A path is unknown (the message suggests similar ones), or a value has the wrong type or is out of range.
    """
    known = _leaves(profile)
    converted = {path: _convert(path, value, known) for path, value in values.items()}
    new = {path: value for path, value in converted.items() if value != known[path][1]}
    if not new:
        return profile
    suffix = "+".join(f"{path}={text(value)}" for path, value in sorted(new.items()))
    try:
        replaced: Profile = _replace(profile, {tuple(path.split(".")): value for path, value in new.items()})
    except ValueError as error:
        fix = "give a value in that range, or omit the setting"
        raise InputError(f"a setting is out of its range: {error}", got=suffix, fix=fix) from None
    return dataclasses.replace(replaced, name=f"{profile.name}+{suffix}")


def differences(before: Profile, after: Profile) -> dict[str, tuple[str, str]]:
    """Return path -> both values, as text, for the fields in which two profiles differ."""
    old, new = _leaves(before), _leaves(after)
    common = [path for path in old if path in new]
    return {path: (text(old[path][1]), text(new[path][1])) for path in common if old[path][1] != new[path][1]}


def check_used(profile: Profile, values: Mapping[str, Any], stages: Callable[[Profile], Iterable[Stage]]) -> None:
    """Raise InputError for a setting without which the same stages would run.

    Raises:
        InputError: A setting changes none of ``stages(profile)``: the arms set that value themselves, or no stage uses it.
    """
    combined = changed(profile, values)
    keys = {stage.key for stage in stages(combined)}
    for path, (before, after) in differences(profile, combined).items():
        try:
            without = changed(profile, {name: value for name, value in values.items() if name != path})
        except InputError:  # the other settings are out of range without it, so it has an effect
            continue
        if {stage.key for stage in stages(without)} == keys:
            raise InputError(
                f"the setting {path} changes nothing here",
                got=f"{path}={after} (is {before})",
                fix="omit it: every arm sets it itself, or no stage of this run uses it",
            )


def text(value: Any) -> str:
    """Format a value: ``true``, ``none``, ``2.0,1.0``."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(text, value)) if isinstance(value, (tuple, list)) else str(value)


def _leaves(profile: Profile) -> dict[str, tuple[Any, Any]]:
    """Return every path that can be set -> its annotated type and value."""
    return {path: leaf for path, *leaf in _walk(profile, Profile, "") if path != "name"}  # type: ignore[misc]


def _walk(value: Any, kind: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(value, Choice):
        return  # a component is chosen by an arm, which checks its options
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


def _convert(path: str, value: Any, known: Mapping[str, tuple[Any, Any]]) -> Any:
    if path not in known:
        namesakes = [name for name in known if name.rpartition(".")[2] == path.rpartition(".")[2]]
        nearest = list(dict.fromkeys([*get_close_matches(path, known, NEAREST, 0.5), *namesakes]))[:NEAREST]
        fix = f"nearest: {', '.join(nearest)}" if nearest else "use the name of a field of rrpo.Profile"
        raise InputError("there is no setting of that name", got=path, fix=fix)
    kind = known[path][0]
    try:
        return _parse(kind, value if isinstance(value, str) else text(value))
    except ValueError:
        example = f"for example {path}={text(known[path][1])}, the current value"
        raise InputError(
            f"{path} takes {_describe(kind)}", got=text(value), fix=f"give {_describe(kind)}, {example}"
        ) from None


def _parse(kind: Any, value: str) -> Any:
    """Parse a text as a value of an annotated type. Raises ValueError if it is not one."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value.lower() == "none":
            return None
        (kind,) = (argument for argument in arguments if argument is not types.NoneType)
        return _parse(kind, value)
    if origin is tuple:
        return tuple(_parse(arguments[0], part.strip()) for part in value.split(",") if part.strip())
    if kind is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind is float and not math.isfinite(float(value)):
        raise ValueError(value)
    if kind not in (int, float, str):
        raise ValueError(value)
    return kind(value)


def _describe(kind: Any) -> str:
    arguments = [argument for argument in typing.get_args(kind) if argument not in (types.NoneType, Ellipsis)]
    if typing.get_origin(kind) is tuple:
        return f"{_describe(arguments[0])}, or several separated by commas"
    if arguments:
        return f"{_describe(arguments[0])}, or none"
    return WORDS.get(kind, "a value that cannot be given as text")


def _replace(node: Any, values: Mapping[tuple[str, ...], Any]) -> Any:
    """Return a config with the values at these paths replaced."""
    children: dict[str, dict[tuple[str, ...], Any]] = {}
    for (head, *tail), value in values.items():
        children.setdefault(head, {})[tuple(tail)] = value
    get = node.__getitem__ if isinstance(node, Mapping) else lambda name: getattr(node, name)
    new = {name: below[()] if () in below else _replace(get(name), below) for name, below in children.items()}
    return {**node, **new} if isinstance(node, Mapping) else dataclasses.replace(node, **new)

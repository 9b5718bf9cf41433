"""The identity of a config: what its key holds, and what it does not.

A field that `option` declares has an *off* value, at which it leaves no trace in a key: adding an option that is off by default
makes no stored result stale. Every other field is in the key with its value, defaults too, so that a changed default never
passes for the old one. Names of classes and modules are in no key: moving code changes none. A leaf.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
SCALARS = frozenset((int, float, str, bool, type(None)))
NEVER_OFF = object()
"""Off value of a field that has none."""


def option(default: T, *, off: T) -> T:
    """A dataclass field that is left out of every key while it has its ``off`` value.

    For what does nothing at that value: with it, the code computes what it did before the field existed.
    """
    found: T = dataclasses.field(default=default, metadata={"off": off})
    return found


def canonical(value: Any) -> Any:
    """A JSON-able form of a config that is equal exactly when the configs mean the same.

    Left out: fields at their `option`'s off value, and fields marked ``metadata={"identity": False}``.
    """
    return _form(value, _kept)


def described(value: Any) -> Any:
    """The JSON-able form with every field of the identity, those that are off too: for people, and for reading back."""
    return _form(value, _named)


def content_hash(value: Any) -> str:
    """32 hex digits of the canonical form."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _form(value: Any, fields: Callable[[Any], Mapping[str, Any]]) -> Any:
    if type(value) in SCALARS:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _form(child, fields) for name, child in fields(value).items()}
    if isinstance(value, (tuple, list)):
        return [_form(item, fields) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _form(item, fields) for key, item in sorted(value.items())}
    if isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a config holds a {type(value).__name__}; use numbers, strings, tuples and dataclasses")


def _named(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name, _ in _identity(_kind(config))}


def _kept(config: Any) -> dict[str, Any]:
    values = ((name, getattr(config, name), off) for name, off in _identity(_kind(config)))
    return {name: value for name, value, off in values if off is NEVER_OFF or value != off}


def _kind(config: Any) -> Hashable:
    kind: Any = type(config)
    return kind


@cache
def _identity(config: Any) -> tuple[tuple[str, Any], ...]:
    """Fields of a config that tell it from others, each with its off value."""
    kept = (f for f in dataclasses.fields(config) if f.metadata.get("identity", True))
    return tuple((f.name, f.metadata.get("off", NEVER_OFF)) for f in kept)

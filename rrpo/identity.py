"""Identity of a config: which of its fields its key includes.

A field declared by `option` has an *off* value, at which the key omits it. Adding an option that is off by default therefore
makes no stored result stale. The key includes every other field with its value, even at the default, so that a changed default
gives a new key. Keys omit the names of classes and modules: moving code changes no key. This module imports nothing from the
package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
SCALARS = frozenset((int, float, str, bool, type(None)))
NEVER_OFF = object()
"""Off value of a field that is always part of the key: no value equals it."""


def files_digest(root: Path, files: Iterable[Path]) -> str:
    """Return a hash of the contents of ``files`` and of their names relative to ``root``, in the given order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(root)}".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def option(default: T, *, off: Any = NEVER_OFF, within: str | Iterable[str] = ()) -> T:
    """Declare a dataclass field by the value at which keys omit it, and by the values that it may have.

    Args:
        default: Default value.
        off: Use it only where the code computes, at ``off``, what it computed before the field existed.
        within: An interval, ``[0, 1)``, or names; `rrpo.config.Checked` rejects other values.
    """
    declared: T = dataclasses.field(default=default, metadata={"off": off, "within": within})
    return declared


def canonical(value: Any) -> Any:
    """Return a JSON-able form of a config. Two forms are equal exactly when the configs mean the same.

    It omits fields at their `option`'s off value and fields with ``metadata={"identity": False}``.
    """
    return _form(value, with_off=False)


def described(value: Any) -> Any:
    """Return a JSON-able form with every identity field, including options that are off; for display and for `rebuild`."""
    return _form(value, with_off=True)


def rebuild(kind: Any, tree: Any) -> Any:
    """Return a value of the annotated type ``kind`` from its JSON form, as returned by `described`.

    Supports dataclasses, tuples, mappings, optionals, unions of plain types, and plain values.

    Raises:
        ValueError: ``kind`` lacks a field.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        kinds = [argument for argument in arguments if argument is not types.NoneType]
        return tree if tree is None or len(kinds) > 1 else rebuild(kinds[0], tree)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(tree) - hints.keys()
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
        return kind(**{name: rebuild(hints[name], value) for name, value in tree.items()})
    if origin is tuple:
        inner = arguments[:1] * len(tree) if arguments[1:] == (...,) else arguments
        return tuple(rebuild(item_kind, item) for item_kind, item in zip(inner, tree, strict=True))
    if origin in (dict, Mapping):
        return {key: rebuild(arguments[1], item) for key, item in tree.items()}
    return kind(tree) if kind in (int, float) and not isinstance(tree, bool) else tree


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path, below ``path``, and the value of each leaf of nested mappings, such as a `described` config."""
    if isinstance(tree, Mapping):
        for name, child in tree.items():
            yield from leaves(child, f"{path}.{name}".lstrip("."))
    else:
        yield path, tree


def content_hash(value: Any) -> str:
    """Return 32 hex digits: a hash of the canonical form."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _form(value: Any, *, with_off: bool) -> Any:
    kind: Any = type(value)
    if kind in SCALARS:
        return value
    if dataclasses.is_dataclass(value):
        fields = ((name, getattr(value, name), off) for name, off in _identity_fields(kind))
        return {name: _form(child, with_off=with_off) for name, child, off in fields if with_off or child != off}
    if isinstance(value, (tuple, list)):
        return [_form(item, with_off=with_off) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _form(item, with_off=with_off) for key, item in sorted(value.items())}
    if isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a config contains a {type(value).__name__}; use numbers, strings, tuples and dataclasses instead")


@cache
def _identity_fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Return the names of a config class's identity fields, each with its off value."""
    fields = (field for field in dataclasses.fields(kind) if field.metadata.get("identity", True))
    return tuple((field.name, field.metadata.get("off", NEVER_OFF)) for field in fields)

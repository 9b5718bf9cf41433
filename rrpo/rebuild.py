"""Rebuild configs from their JSON form."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any


def rebuild(kind: Any, tree: Any) -> Any:
    """Return a value of the annotated type ``kind`` from its JSON form, as returned by `rrpo.identity.described`.

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

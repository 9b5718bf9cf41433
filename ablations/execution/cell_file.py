"""A cell as a file, ``cell.json``, from which the very same cell can be made again."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from ablations.errors import InputError
from rrpo.pipeline.cell import Cell

CELL_FILE = "cell.json"


def cell_json(cell: Cell) -> str:
    """The whole config, fields that are no part of its identity (where a manifest lies) included."""
    fields = {field.name: getattr(cell, field.name) for field in dataclasses.fields(Cell)}
    tree = {name: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for name, v in fields.items()}  # type: ignore[arg-type]
    return json.dumps(tree, indent=1)


def read_cell(text: str) -> Cell:
    """The cell that `cell_json` wrote.

    Raises InputError when this version of the code has other fields.
    """
    try:
        cell = rebuild(Cell, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fix = "check out the commit that made it (tag git_sha), or run the grid again with this code"
        raise InputError(
            f"the recorded {CELL_FILE} does not fit this version of the code", got=error, fix=fix
        ) from None
    assert isinstance(cell, Cell)
    return cell


def rebuild(kind: Any, tree: Any) -> Any:
    """A value of the annotated type ``kind`` from its JSON form: dataclasses, tuples, mappings, optionals and plain values."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if tree is None:
            return None
        (kind,) = [argument for argument in arguments if argument is not types.NoneType]
        return rebuild(kind, tree)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(tree) - hints.keys()
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
        return kind(**{name: rebuild(hints[name], value) for name, value in tree.items()})
    if origin is tuple:
        inner = arguments[:1] * len(tree) if arguments[1:] == (...,) else arguments
        return tuple(rebuild(each, item) for each, item in zip(inner, tree, strict=True))
    if origin in (dict, Mapping):
        return {key: rebuild(arguments[1], item) for key, item in tree.items()}
    return kind(tree) if kind in (int, float) and not isinstance(tree, bool) else tree

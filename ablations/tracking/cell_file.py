"""Read and write ``cell.json``, the complete config of a cell, from which an identical cell can be built."""

from __future__ import annotations

import dataclasses
import json

from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.identity import rebuild

CELL_FILE = "cell.json"


def cell_json(cell: Cell) -> str:
    """Return the complete config as JSON, including fields outside the cell's identity, such as manifest paths."""
    fields = {field.name: getattr(cell, field.name) for field in dataclasses.fields(Cell)}
    return json.dumps(fields, default=dataclasses.asdict, indent=1)


def read_cell(text: str) -> Cell:
    """Return the cell that `cell_json` wrote.

    Raises:
        InputError: This version of the code has different fields.
    """
    try:
        cell = rebuild(Cell, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fix = "check out the commit that recorded it (tag git_sha), or run the grid again with this code"
        raise InputError(
            f"the recorded {CELL_FILE} does not fit this version of the code", got=error, fix=fix
        ) from None
    assert isinstance(cell, Cell)
    return cell

"""The table of a grid as Markdown and CSV, from the same function that ends a run."""

from __future__ import annotations

from pathlib import Path

from ablations.summary import Table, table
from reports.store import Selection


def make(selection: Selection) -> Table:
    """The table with the selection's notes first."""
    made = table(selection.records, selection.planned)
    return Table(made.columns, made.rows, selection.notes + made.notes)


def write(made: Table, grid: str, out: Path) -> list[Path]:
    """``table.md`` and ``table.csv``; the same bytes for the same records."""
    paths = [out / "table.md", out / "table.csv"]
    paths[0].write_text(f"# Grid {grid}\n\n{made.markdown()}")
    paths[1].write_text(made.csv())
    return paths

"""``python -m ablations.guidance``: how guided decoding answers to its knobs, from the finished cells of a grid.

A line a setting, means over seeds. Of EmoDiff's intensity alpha: Spearman's rank correlation with gold's probability of the
target and with acoustic intensity (`rrpo.judges.intensity`), over all samples of a seed, and over those alone whose phone errors
are within the bound of clean success: a sample can have more of an emotion because it says less.

Exit status: 0, or 2 for bad input or a store that does not answer.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ablations.commands import RunsDir, refusing, say, start
from ablations.errors import InputError, choose
from ablations.execution.runs_folder import check
from ablations.guided_arms import sweeps
from ablations.judges import gold
from ablations.outcomes import PHONE_ERROR_BOUND, find
from ablations.tracking.reader import Store
from ablations.tracking.records import Record

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = ("clean_success", "gold", "phone_error_rate", "kl_token", "intensity")
"""Columns of the table: names that `ablations.outcomes.find` knows."""
WIDTH = 120
"""Columns where the output is no terminal."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def command(
    grid: Annotated[str, typer.Option(help="Which grid.")] = "guidance", runs_dir: RunsDir = Path("runs")
) -> None:
    """Print every setting of guided decoding, and how judge and acoustics follow EmoDiff's intensity."""
    with refusing():
        store = Store(check(runs_dir))
        records = store.records(choose("grid with records", grid, store.grids()))
        if not (guided := [record for record in records if record.label in sweeps() or record.label == "sft"]):
            fix = f"run it first: python -m ablations.run --grid guidance --runs-dir {runs_dir}"
            raise InputError("the grid has no finished cell of guided decoding", got=grid, fix=fix)
        console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
        console.print(settings_table(guided))
        for line in [*intensity_lines(guided), *mixture_lines(guided)]:
            say(console, line)


def settings_table(records: Sequence[Record]) -> Table:
    """Means over seeds of `OUTCOMES`, a row an arm."""
    columns = [find(name) for name in OUTCOMES]
    table = Table("arm", "seeds", *(column.label for column in columns))
    for label in dict.fromkeys(record.label for record in records):
        mine = [record for record in records if record.label == label]
        means = [np.mean([column.read(record) for record in mine]) for column in columns]
        table.add_row(label, str(len(mine)), *(f"{mean:.3f}" for mean in means))
    return table


def last(record: Record) -> pd.DataFrame:
    """The samples of a cell's last checkpoint."""
    samples = record.samples
    return samples[samples["step"] == samples["step"].max()]


def by_setting(records: Sequence[Record], option: str) -> dict[int, dict[float, pd.DataFrame]]:
    """Seed -> value of an option of guided decoding -> samples, of the arms of one sweep, ``arm@<option><value>``."""
    known = sweeps()
    found: dict[int, dict[float, pd.DataFrame]] = {}
    for record in records:
        if record.label.partition("@")[2].startswith(option) and (guidance := known[record.label].guidance):
            value = dict(guidance.options)[option]
            found.setdefault(record.seed, {})[float(value)] = last(record)
    return found


def intensity_lines(records: Sequence[Record]) -> list[str]:
    """`rank_correlations` with alpha, in words; empty without at least two intensities of a seed."""
    seeds = [rank_correlations(tables) for tables in by_setting(records, "alpha").values() if len(tables) > 1]
    return [
        f"Spearman of alpha with {name}: {np.mean([found[name] for found in seeds]):.2f} "
        f"(by seed: {', '.join(f'{found[name]:.2f}' for found in seeds)})"
        for name in (seeds[0] if seeds else ())
    ]


def rank_correlations(tables: Mapping[float, pd.DataFrame]) -> dict[str, float]:
    """Spearman's correlation of alpha with gold's probability of the target and with acoustic intensity, over samples.

    Args:
        tables: Alpha -> table of samples.
    """
    import pandas as pd

    table = pd.concat([rows.assign(alpha=alpha) for alpha, rows in tables.items()])
    understood = table["phone_errors"] <= PHONE_ERROR_BOUND * table["phones"]
    found: dict[str, float] = {}
    for whose, rows in {"": table, ", phones understood": table[understood]}.items():
        values = {"gold's probability": np.exp(rows[gold().logprob]), "acoustic intensity": rows["intensity"]}
        found |= {f"{name}{whose}": float(rows["alpha"].corr(of, method="spearman")) for name, of in values.items()}
    return found


def mixture_lines(records: Sequence[Record]) -> list[str]:
    """Gold's mean probability of the first and of the second emotion in each mixture, over samples that ask for another first."""
    lines, known = [], sweeps()
    for label in dict.fromkeys(record.label for record in records if record.label in known):
        second = dict(known[label].guidance.options).get("second")  # type: ignore[union-attr]
        if second is not None:
            tables = [last(record) for record in records if record.label == label]
            first, other = np.mean([profile(table, str(second)) for table in tables], axis=0)
            lines.append(f"{label}: gold hears the first emotion at {first:.2f}, {second} at {other:.2f}")
    return lines


def profile(table: pd.DataFrame, second: str) -> tuple[float, float]:
    """Mean probabilities of the target and of ``second``, over samples with another target."""
    mixed = table[table["target"] != second]
    return float(np.exp(mixed[gold().logprob]).mean()), float(mixed[f"heard_{second}"].mean())


def main() -> None:
    """Entry point of the console script."""
    start(app, "ablations.guidance")


if __name__ == "__main__":
    main()

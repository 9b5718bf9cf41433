"""``python -m ablations.guidance``: how guided decoding answers to its knobs, from the finished cells of a grid.

A line a setting, means over seeds; a report of the grid holds the same table. Of EmoDiff's intensity alpha: Spearman's rank
correlation with gold's probability of the target and with acoustic intensity (`rrpo.judges.intensity`), as it is and at equal
phone errors: a sample can have more of an emotion because it says less.

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

from ablations.commands import RunsDir, refusing, start
from ablations.errors import InputError, choose
from ablations.execution.runs_folder import check
from ablations.guided_arms import guided_arms, sweeps
from ablations.judges import gold
from ablations.outcomes import find, followed, measured
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import over_seeds
from ablations.run import show_table
from ablations.tracking.reader import Store
from ablations.tracking.records import Record

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = (
    *map(find, ("clean_success", "gold", "phone_error_rate", "kl_token")),
    followed("intensity", "acoustic intensity", "intensity", "plain"),
    followed("speaker_similarity", "similarity to the speaker", "speaker_similarity", "plain", +1),
    followed("reference_emotion", "emotion read off the speaker's vector", "reference_emotion", direction=-1),
    followed("reference_speaker", "speaker read off it", "reference_speaker", direction=+1),
)
"""Columns of the table; those that no cell has are left out."""
NOTES = (
    "KL: to the SFT policy; of ``zet``, to its own policy without guidance. Acoustic intensity: 0 is the speaker's neutral "
    "speech, 1 the mean of the emotion.",
    "``zet`` is asked for speakers that no policy and no reward model has heard, by neutral references; the last two columns are "
    "accuracies on such speakers' vectors (chance: 16.7 % for emotion).",
)
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
        made = sheet(store.records(choose("grid with records", grid, store.grids())))
        if made is None:
            fix = f"run it first: python -m ablations.run --grid guidance --runs-dir {runs_dir}"
            raise InputError("the grid has no finished cell of guided decoding", got=grid, fix=fix)
        show_table(made, Console() if sys.stdout.isatty() else Console(width=WIDTH), made.title)


def sheet(records: Sequence[Record]) -> Sheet | None:
    """Means over seeds of `OUTCOMES`, a row a guided arm, under SFT; None without a guided arm."""
    known = guided_arms() | sweeps()
    labels = [label for label in dict.fromkeys(record.label for record in records) if label in known]
    if not labels:
        return None
    records = [record for record in records if record.label in ("sft", *labels)]
    outcomes = [outcome for outcome in OUTCOMES if measured(outcome, records)]
    values = [outcome.values(records) for outcome in outcomes]
    rows: list[tuple[Value, ...]] = []
    for label in dict.fromkeys(record.label for record in records):
        seeds = [record.seed for record in records if record.label == label]
        rows.append((label, float(len(seeds)), *(over_seeds(label, seeds, found) for found in values)))
    head = (Column("arm", "arm"), Column("n", "n", "count"))
    notes = (*NOTES, *intensity_lines(records), *mixture_lines(records))
    return Sheet(
        "guidance", "Guided decoding", (*head, *(outcome.as_column() for outcome in outcomes)), tuple(rows), notes
    )


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

    At equal phone errors it is the partial one, (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)) with z the share of phones
    that are wrong. Samples of which a value is missing are left out.

    Args:
        tables: Alpha -> table of samples.
    """
    import pandas as pd

    table = pd.concat([rows.assign(alpha=alpha) for alpha, rows in tables.items()])
    found: dict[str, float] = {}
    for name, of in {
        "gold's probability": np.exp(table[gold().logprob]),
        "acoustic intensity": table["intensity"],
    }.items():
        ranks = (
            pd.DataFrame({"x": table["alpha"], "y": of, "z": table["phone_errors"] / table["phones"]}).dropna().rank()
        )
        (_, xy, xz), (_, _, yz), _ = ranks.corr().to_numpy()
        found[name] = float(xy)
        found[f"{name} at equal phone errors"] = float((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    return found


def mixture_lines(records: Sequence[Record]) -> list[str]:
    """Gold's mean probability of the first and of the second emotion in each mixture, over samples that ask for another first;
    and in SFT's samples, whose second emotion nobody asked for.
    """
    lines, known = [], guided_arms() | sweeps()
    plain = [table for table in (last(record) for record in records if record.label == "sft") if "intensity" in table]
    for label in dict.fromkeys(record.label for record in records if record.label in known):
        second = dict(known[label].guidance.options).get("second")  # type: ignore[union-attr]
        if second is not None:
            mixed = _profiles([last(record) for record in records if record.label == label], str(second))
            beside = f" (SFT: {_profiles(plain, str(second))})" if plain else ""
            lines.append(f"{label}: gold hears {mixed}{beside}")
    return lines


def _profiles(tables: Sequence[pd.DataFrame], second: str) -> str:
    first, other = np.mean([profile(table, second) for table in tables], axis=0)
    return f"the first emotion at {first:.2f}, {second} at {other:.2f}"


def profile(table: pd.DataFrame, second: str) -> tuple[float, float]:
    """Mean probabilities of the target and of ``second``, over samples with another target."""
    mixed = table[table["target"] != second]
    return float(np.exp(mixed[gold().logprob]).mean()), float(mixed[f"heard_{second}"].mean())


def main() -> None:
    """Entry point of the console script."""
    start(app, "ablations.guidance")


if __name__ == "__main__":
    main()

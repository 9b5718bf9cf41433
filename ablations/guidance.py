"""``python -m ablations.guidance``: show how guided decoding responds to its hyperparameters, from a grid's finished cells.

Prints one row per setting with means over seeds; the grid's report has the same table. For EmoDiff's intensity alpha it also
prints Spearman's rank correlation with gold's probability of the target and with acoustic intensity (`rrpo.judges.intensity`),
both plain and at equal phone errors, because a sample can express more emotion by losing phones.

Exit status: 0, or 2 for bad input or a store that does not respond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ablations.commands import RunsDir, exit_on_input_error, program, show_table, terminal
from ablations.errors import InputError, choose
from ablations.guided_arms import guided_arms, sweeps
from ablations.judges import gold
from ablations.outcomes import find, followed, measured
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import over_seeds
from ablations.tracking.reader import Store
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import check

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = (
    *map(find, ("clean_success", "gold", "phone_error_rate", "kl_token")),
    followed("intensity", "acoustic intensity", "intensity", "plain"),
    followed("speaker_similarity", "similarity to the speaker", "speaker_similarity", "plain", +1),
    followed("reference_emotion", "emotion predicted from the speaker's vector", "reference_emotion", direction=-1),
    followed("reference_speaker", "speaker predicted from it", "reference_speaker", direction=+1),
)
"""Columns of the table; an outcome that no cell has is omitted."""
NOTES = (
    "KL is to the SFT policy; for ``zet``, to its own policy without guidance. Acoustic intensity: 0 is the speaker's neutral "
    "speech, 1 is the mean of the emotion.",
    "``zet`` speaks as speakers unseen in the training of policies and reward models, from neutral references. The last two "
    "columns are accuracies on such speakers' vectors (chance: 16.7 % for emotion).",
)
app, main = program("ablations.guidance")


@app.command()
def command(
    grid: Annotated[str, typer.Option(help="Grid with guided arms.")] = "guidance", runs_dir: RunsDir = Path("runs")
) -> None:
    """Print all settings of guided decoding, and the correlations of judge and acoustics with EmoDiff's intensity."""
    with exit_on_input_error():
        store = Store(check(runs_dir))
        table = sheet(store.records(choose("grid with records", grid, store.grids())))
        if table is None:
            fix = f"run it first: python -m ablations.run --grid guidance --runs-dir {runs_dir}"
            raise InputError("the grid has no finished cell with guided decoding", got=grid, fix=fix)
        show_table(table, terminal(120), table.title)


def sheet(records: Sequence[Record]) -> Sheet | None:
    """Return the means of `OUTCOMES` over seeds, one row for SFT and each guided arm; None if there is no guided arm."""
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
        rows.append((label, float(len(seeds)), *(over_seeds(label, seeds, by_cell) for by_cell in values)))
    head = (Column("arm", "arm"), Column("n", "n", "count"))
    notes = (*NOTES, *intensity_lines(records), *mixture_lines(records))
    return Sheet(
        "guidance", "Guided decoding", (*head, *(outcome.as_column() for outcome in outcomes)), tuple(rows), notes
    )


def last(record: Record) -> pd.DataFrame:
    """Return the samples of a cell's last checkpoint."""
    samples = record.samples
    return samples[samples["step"] == samples["step"].max()]


def by_setting(records: Sequence[Record], option: str) -> dict[int, dict[float, pd.DataFrame]]:
    """Return seed -> value of the option -> samples, for the arms ``arm@<option><value>`` of a sweep."""
    known = sweeps()
    tables: dict[int, dict[float, pd.DataFrame]] = {}
    for record in records:
        if record.label.partition("@")[2].startswith(option) and (guidance := known[record.label].guidance):
            value = dict(guidance.options)[option]
            tables.setdefault(record.seed, {})[float(value)] = last(record)
    return tables


def intensity_lines(records: Sequence[Record]) -> list[str]:
    """Return `rank_correlations` as text, mean and by seed; empty if no seed has two intensities."""
    by_seed = [rank_correlations(tables) for tables in by_setting(records, "alpha").values() if len(tables) > 1]
    return [
        f"Spearman of alpha with {name}: {np.mean([correlations[name] for correlations in by_seed]):.2f} "
        f"(by seed: {', '.join(f'{correlations[name]:.2f}' for correlations in by_seed)})"
        for name in (by_seed[0] if by_seed else ())
    ]


def rank_correlations(tables: Mapping[float, pd.DataFrame]) -> dict[str, float]:
    """Return Spearman's correlations, over samples, of alpha with gold's probability of the target and with acoustic intensity.

    "At equal phone errors" is the partial correlation (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)), where z is the phone
    error rate. Samples with a missing value are omitted.

    Args:
        tables: Alpha -> table of samples.
    """
    import pandas as pd

    table = pd.concat([rows.assign(alpha=alpha) for alpha, rows in tables.items()])
    correlations: dict[str, float] = {}
    for name, y in {
        "gold's probability": np.exp(table[gold().logprob]),
        "acoustic intensity": table["intensity"],
    }.items():
        ranks = (
            pd.DataFrame({"x": table["alpha"], "y": y, "z": table["phone_errors"] / table["phones"]}).dropna().rank()
        )
        (_, xy, xz), (_, _, yz), _ = ranks.corr().to_numpy()
        correlations[name] = float(xy)
        correlations[f"{name} at equal phone errors"] = float((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    return correlations


def mixture_lines(records: Sequence[Record]) -> list[str]:
    """Return, for each mixture, gold's mean probabilities of the first and the second emotion, over samples in which they differ.

    The same probabilities in SFT's samples, where no second emotion is requested, serve as a reference.
    """
    lines, known = [], guided_arms() | sweeps()
    sft_tables = [
        table for table in (last(record) for record in records if record.label == "sft") if "intensity" in table
    ]
    for label in dict.fromkeys(record.label for record in records if record.label in known):
        second = dict(known[label].guidance.options).get("second")  # type: ignore[union-attr]
        if second is not None:
            probabilities = _profiles([last(record) for record in records if record.label == label], str(second))
            reference = f" (SFT: {_profiles(sft_tables, str(second))})" if sft_tables else ""
            lines.append(f"{label}: gold's mean probabilities are {probabilities}{reference}")
    return lines


def _profiles(tables: Sequence[pd.DataFrame], second: str) -> str:
    target_mean, second_mean = np.mean([profile(table, second) for table in tables], axis=0)
    return f"{target_mean:.2f} of the first emotion and {second_mean:.2f} of {second}"


def profile(table: pd.DataFrame, second: str) -> tuple[float, float]:
    """Return gold's mean probabilities of the target and of ``second``, over samples with another target than ``second``."""
    rows = table[table["target"] != second]
    return float(np.exp(rows[gold().logprob]).mean()), float(rows[f"heard_{second}"].mean())


if __name__ == "__main__":
    main()

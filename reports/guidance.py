"""Table of guided decoding across its hyperparameters: one row per setting with means over seeds.

For EmoDiff's intensity alpha, the notes give Spearman's rank correlation with gold's probability of the target and with acoustic
intensity (`rrpo.judges.intensity`), both plain and at equal phone errors, because a sample can express more emotion by losing
phones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ablations.guided_arms import guided_arms, sweeps
from ablations.judges import gold
from ablations.outcomes import clean_at_any_length, find, followed, measured
from ablations.rendering.sheet import Sheet
from ablations.rendering.summary import by_arm
from ablations.tracking.records import Record

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = (
    *map(find, ("clean_success", clean_at_any_length().name, "gold", "phone_error_rate", "kl_token")),
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
    "columns are accuracies on such speakers' vectors (chance: 16.7 % for emotion). Its baseline is ``zet@gamma0``, not SFT.",
    "``emomix``: clean success and gold refer to the first emotion only, also where the second one was requested.",
    f"{clean_at_any_length().label.capitalize()}: {clean_at_any_length().note}; ``zet@gamma0`` and ``zet@reversal0`` are their "
    "own reference, too.",
)


def sheet(records: Sequence[Record]) -> Sheet | None:
    """Return the means of `OUTCOMES` over seeds, one row for SFT and each guided arm; None if there is no guided arm."""
    known = guided_arms() | sweeps()
    labels = [label for label in dict.fromkeys(record.label for record in records) if label in known]
    if not labels:
        return None
    records = [record for record in records if record.label in ("sft", *labels)]
    outcomes = [outcome for outcome in OUTCOMES if measured(outcome, records)]
    notes = (*NOTES, *intensity_lines(records), *mixture_lines(records))
    return by_arm("guidance", "Guided decoding", records, outcomes, *notes)


def by_setting(records: Sequence[Record], option: str) -> dict[int, dict[float, pd.DataFrame]]:
    """Return seed -> value of the option -> samples, for the arms ``arm@<option><value>`` of a sweep."""
    known = sweeps()
    tables: dict[int, dict[float, pd.DataFrame]] = {}
    for record in records:
        if record.label.partition("@")[2].startswith(option) and (guidance := known[record.label].guidance):
            value = dict(guidance.options)[option]
            tables.setdefault(record.seed, {})[float(value)] = record.last_samples
    return tables


def intensity_lines(records: Sequence[Record]) -> list[str]:
    """Return `rank_correlations` as text, mean and by seed; empty if no seed has two intensities."""
    measured = [record for record in records if "intensity" in record.samples]  # by a stage that may be missing
    by_seed = [rank_correlations(tables) for tables in by_setting(measured, "alpha").values() if len(tables) > 1]
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
    sft_tables = [record.last_samples for record in records if record.label == "sft" and "intensity" in record.samples]
    for label in dict.fromkeys(record.label for record in records if record.label in known):
        second = dict(known[label].guidance.options).get("second")  # type: ignore[union-attr]
        mixed = [
            record.last_samples for record in records if record.label == label and f"heard_{second}" in record.samples
        ]
        if mixed:
            probabilities = _profiles(mixed, str(second))
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

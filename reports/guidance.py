"""Tables of guided decoding across its hyperparameters: one row per setting; EmoDiff's intensity; EmoMix's mixtures.

For EmoDiff's intensity alpha: Spearman's rank correlation with gold's probability of the target and with acoustic intensity
(`rrpo.judges.intensity`), both plain and at equal phone errors, because a sample can express more emotion by losing phones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ablations.grids import split_label
from ablations.guided_arms import guided_arms, sweeps
from ablations.judges import gold
from ablations.outcomes import clean_at_any_length, find, followed, measured
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import ARM, N, by_arm
from ablations.stats.contrasts import SFT
from ablations.stats.statistics import t_interval
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
    f"{clean_at_any_length().label.capitalize()}: {clean_at_any_length().note}; ``zet@gamma0`` and ``zet@reversal0`` are "
    "measured against their own samples.",
)


def sheets(records: Sequence[Record]) -> list[Sheet]:
    """Return the tables that can be computed; none if there is no guided arm."""
    known = guided_arms() | sweeps()
    records = [record for record in records if record.label == SFT or record.label in known]
    if all(record.label == SFT for record in records):
        return []
    tables = (intensity(records), mixtures(records))
    return [settings(records), *(table for table in tables if table is not None)]


def settings(records: Sequence[Record]) -> Sheet:
    """Return the means of `OUTCOMES` over seeds, with one row per arm."""
    outcomes = [outcome for outcome in OUTCOMES if measured(outcome, records)]
    return by_arm("guidance", "Guided decoding", records, outcomes, *NOTES)


def by_setting(records: Sequence[Record], option: str) -> dict[int, dict[float, pd.DataFrame]]:
    """Return seed -> value of the option -> samples, for the arms ``arm@<option><value>`` of a sweep."""
    known = sweeps()
    tables: dict[int, dict[float, pd.DataFrame]] = {}
    for record in records:
        if split_label(record.label)[1].startswith(option) and (guidance := known[record.label].guidance):
            value = dict(guidance.options)[option]
            tables.setdefault(record.seed, {})[float(value)] = record.last_samples
    return tables


def intensity(records: Sequence[Record]) -> Sheet | None:
    """Return the means of `rank_correlations` over seeds; None if no seed has two intensities."""
    measured = [record for record in records if "intensity" in record.samples]  # by a stage that may be missing
    by_seed = [rank_correlations(tables) for tables in by_setting(measured, "alpha").values() if len(tables) > 1]
    rows: list[dict[Column, Value]] = []
    for name in by_seed[0] if by_seed else ():
        plain, partial = zip(*(correlations[name] for correlations in by_seed), strict=True)
        rows.append(
            {
                Column("measure", "rises with alpha?"): name,
                N: float(t_interval(plain).n),
                Column("spearman", "Spearman's correlation with alpha", "effect"): t_interval(plain),
                Column("partial", "at equal phone errors", "effect"): t_interval(partial),
            }
        )
    note = (
        "Rank correlation of alpha with the measure, over the samples of all settings ``emodiff@alpha...`` of a seed, then "
        "over the same samples at equal phone errors (partial correlation). Mean over seeds with the 95 % t-interval; not tested."
    )
    return Sheet.of("intensity", "EmoDiff's intensity", rows, note)


def rank_correlations(tables: Mapping[float, pd.DataFrame]) -> dict[str, tuple[float, float]]:
    """Return measure -> Spearman's correlation with alpha over samples, and the same at equal phone errors.

    The measures are gold's probability of the target and acoustic intensity. The second number is the partial correlation
    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)), where z is the phone error rate. Samples with a missing value are
    omitted.

    Args:
        tables: Alpha -> table of samples.
    """
    import pandas as pd

    table = pd.concat([rows.assign(alpha=alpha) for alpha, rows in tables.items()])
    correlations: dict[str, tuple[float, float]] = {}
    for name, y in {
        "gold's probability": np.exp(table[gold().logprob]),
        "acoustic intensity": table["intensity"],
    }.items():
        ranks = (
            pd.DataFrame({"x": table["alpha"], "y": y, "z": table["phone_errors"] / table["phones"]}).dropna().rank()
        )
        (_, xy, xz), (_, _, yz), _ = ranks.corr().to_numpy()
        correlations[name] = float(xy), float((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    return correlations


def mixtures(records: Sequence[Record]) -> Sheet | None:
    """Return gold's mean probabilities of the first and the second emotion of each mixture, over samples in which they differ;
    None if no cell has them.

    The same probabilities in SFT's samples, where no second emotion is requested, serve as a reference.
    """
    known = guided_arms() | sweeps()
    rows: list[dict[Column, Value]] = []
    for label in dict.fromkeys(record.label for record in records if record.label != SFT):
        second = str(dict(known[label].guidance.options).get("second"))  # type: ignore[union-attr]
        heard = [record for record in records if f"heard_{second}" in record.samples]
        profiles = {
            arm: [profile(record.last_samples, second) for record in heard if record.label == arm]
            for arm in (label, SFT)
        }
        if not profiles[label]:
            continue
        mean = {(arm, i): t_interval([row[i] for row in profiles[arm]]) for arm in profiles for i in (0, 1)}
        rows.append(
            {
                ARM: label,
                N: float(len(profiles[label])),
                Column("second", "second emotion"): second,
                Column("p_first", "gold's probability of the first, %", "percent"): mean[label, 0],
                Column("p_first_sft", "in SFT's samples, %", "percent"): mean[SFT, 0],
                Column("p_second", "gold's probability of the second, %", "percent"): mean[label, 1],
                Column("p_second_sft", "in SFT's samples, %", "percent"): mean[SFT, 1],
            }
        )
    note = (
        "First: the target, spoken first; samples whose target is the second emotion are left out. In SFT's samples, no second "
        "emotion was requested. Mean over seeds ± half the 95 % t-interval; not tested."
    )
    return Sheet.of("mixtures", "Mixed emotions", rows, note)


def profile(table: pd.DataFrame, second: str) -> tuple[float, float]:
    """Return gold's mean probabilities of the target and of ``second``, over samples with another target than ``second``."""
    rows = table[table["target"] != second]
    return float(np.exp(rows[gold().logprob]).mean()), float(rows[f"heard_{second}"].mean())

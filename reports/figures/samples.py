"""Figures of samples: the gold judge's confusion matrices, and the spectrogram of a sample on the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.judges import gold
from ablations.rendering.figure_style import WIDE, figure_of, pick, preferred, save
from ablations.tracking.records import Record

if TYPE_CHECKING:
    import pandas as pd

FLOOR = -70.0
"""Lowest level shown, in decibels relative to the maximum."""


def confusion_caption() -> str:
    """Return the caption of the confusion matrices."""
    return (
        f"Predictions of the {gold().label} (columns) for samples with each target emotion (rows) at the last "
        "checkpoint, in % of each row, over all seeds; values below 0.5 % are left blank."
    )


def spectrogram(wave: np.ndarray, rate: int) -> np.ndarray:
    """Return power in dB relative to its maximum, ``[frequency, time]``: windows of 32 ms every 8 ms."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    size = int(0.032 * rate)
    transform = ShortTimeFFT(hann(size, sym=False), hop=size // 4, fs=rate, mfft=2 * size)
    power = transform.spectrogram(wave if len(wave) > size else np.pad(wave, (0, size)))
    level: np.ndarray = 10 * np.log10(np.maximum(power, 1e-12 * max(power.max(), 1e-12)))
    return level - level.max()


def arms_with_samples(records: Sequence[Record]) -> list[str]:
    """Return the arms shown in the figure of confusion matrices."""
    return pick(list(dict.fromkeys(record.label for record in records if not record.samples.empty)), preferred())


def confusion(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw ``confusion.pdf`` and ``.png``; nothing if no samples were stored."""
    import pandas as pd

    tables: dict[str, pd.DataFrame] = {}
    for arm in arms_with_samples(records):
        last = pd.concat([r.last_samples for r in records if r.label == arm and not r.samples.empty])
        tables[arm] = pd.crosstab(last["target"], last[gold().name], normalize="index")
    if not tables:
        return []
    order = sorted(set().union(*(set(t.index) | set(t.columns) for t in tables.values())))
    with figure_of(WIDE, 1.75, 1, len(tables), sharey=True) as (figure, axes):
        for axis, (arm, table) in zip(axes, tables.items(), strict=True):
            share = table.reindex(index=order, columns=order).fillna(0.0).to_numpy()
            axis.imshow(share, vmin=0, vmax=1, cmap="Greys", aspect="equal")
            for (i, k), value in np.ndenumerate(share):
                if value >= 0.005:
                    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 5.5}
                    axis.text(k, i, f"{100 * value:.0f}", color="white" if value > 0.5 else "black", **style)
            axis.set_xticks(range(len(order)), order, rotation=90)
            axis.set_yticks(range(len(order)), order)
            axis.tick_params(length=0, labelsize=6)
            axis.set_title(arm, loc="left", pad=3)
        axes[0].set_ylabel("target")
        figure.supxlabel(f"prediction of the {gold().label}", fontsize=7.5)
        return save(figure, folder, "confusion")

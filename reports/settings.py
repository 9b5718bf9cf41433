"""Settings of a grid: the same arms with other data or another reward model, labeled ``arm@setting``.

A setting is identified by what its arms override. The *default setting* has the values of the profile.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ablations.grids import OVERRIDES, split_label
from ablations.stats.family import labelled
from ablations.tracking.records import Record
from reports.loading import Selection
from rrpo.config import ArmConfig

_DEFAULTS = {field: getattr(ArmConfig(), field) for field in OVERRIDES}

FACTORS: dict[str, str] = {
    "rater noise": "rater_noise",
    "planted shortcut": "shortcut",
    "annotated artefacts": "annotated_artefacts",
    "RM learning rate": "rm_lr",
    "RM utterances": "rm_utterances",
    "RM speakers": "rm_speakers",
    "annotated utterances": "annotated",
    "reward": "reward",
    "learning rate": "lr",
    "beta": "beta",
    "updates": "steps",
}
"""Name of a factor in which settings differ -> the field of `ArmConfig` that sets it, a key of `ablations.grids.OVERRIDES`."""
SHORTCUT = "planted shortcut"
Level = float | str
"""Level of a factor; NaN if unknown."""


@dataclass(frozen=True)
class Setting:
    """One setting of a grid."""

    name: str
    """The part of its arms' labels after the ``@``."""
    levels: Mapping[str, Level]
    """Factor (key of `FACTORS`) -> level."""
    changed: Mapping[str, Level]
    """The levels that differ from the profile's."""
    records: tuple[Record, ...]
    """Records of its cells."""

    @property
    def own(self) -> bool:
        """Whether all levels are known to be those of the profile."""
        return bool(self.records) and not self.changed

    @property
    def arms(self) -> list[str]:
        """Names of its arms, without the setting, in the grid's order."""
        return list(dict.fromkeys(split_label(record.label)[0] for record in self.records))

    def weights(self, contrast: Mapping[str, float]) -> dict[str, float]:
        """Return a contrast of arms as a contrast of this setting's labels."""
        return labelled(contrast, self.name)


def settings(records: Sequence[Record], planned: Iterable[str] = ()) -> list[Setting]:
    """Return all settings of a grid, in its order; empty for a grid of plain arms.

    A setting that occurs only in the ``planned`` labels has no records, and NaN for its levels.
    """
    by_setting: dict[str, list[Record]] = {}
    for label in planned:
        by_setting.setdefault(split_label(label)[1], [])
    for record in records:
        by_setting.setdefault(split_label(record.label)[1], []).append(record)
    return [_setting(name, tuple(setting_records)) for name, setting_records in by_setting.items() if name]


def _setting(name: str, records: tuple[Record, ...]) -> Setting:
    if not records:
        return Setting(name, dict.fromkeys(FACTORS, math.nan), {}, ())
    changed: dict[str, Level] = {}
    for record in records:  # an arm that the setting does not change says nothing about it
        changed = _changed(record.config) | changed
    levels = {factor: _profile_value(records[0].config, field) for factor, field in FACTORS.items()}
    return Setting(name, levels | changed, changed, records)


def _changed(params: Mapping[str, str]) -> dict[str, Level]:
    """Return factor -> level for the factors in which a cell's arm differs from its profile."""
    levels = {f: json.loads(params.get(f"arm.{field}", json.dumps(_DEFAULTS[field]))) for f, field in FACTORS.items()}
    return {
        factor: level
        for factor, level in levels.items()
        if level not in (_DEFAULTS[FACTORS[factor]], _profile_value(params, FACTORS[factor]))
    }


def _profile_value(params: Mapping[str, str], field: str) -> Level:
    """Return the profile's value of a field, or the default of `ArmConfig` if the profile has none."""
    value: Level | None = json.loads(params.get(f"profile.{OVERRIDES[field]}", json.dumps(_DEFAULTS[field])))
    return math.nan if value is None else value


def plain(selection: Selection) -> tuple[Selection, str]:
    """Return the records shown arm by arm in figures and audio, and a sentence for their captions.

    For a grid that has plain arms these are all records. For a grid of settings they are those of the default setting (or the
    first one), under the arms' plain names.
    """
    all_settings = settings(selection.records)
    if not all_settings or any(not split_label(record.label)[1] for record in selection.records):
        return selection, ""
    chosen = next((setting for setting in all_settings if setting.own), all_settings[0])
    records = tuple(replace(r, label=split_label(r.label)[0]) for r in chosen.records)
    lost = {
        (split_label(arm)[0], seed): kind
        for (arm, seed), kind in selection.lost.items()
        if split_label(arm)[1] == chosen.name
    }
    planned = dict(Counter([*(record.label for record in records), *(arm for arm, _ in lost)]))
    selected = replace(selection, records=records, planned=planned, lost=lost)
    return selected, f"Setting: {chosen.name}, of {len(all_settings)}."

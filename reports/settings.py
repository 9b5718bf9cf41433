"""Settings of a grid: the same arms with other data or another reward model, labeled ``arm@setting``.

A setting is identified by what its arms override. The *default setting* has the values of the profile.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.grids import OVERRIDES, split_label
from ablations.stats.family import labelled
from ablations.tracking.records import Record
from reports.loading import Selection
from rrpo.config import ArmConfig
from rrpo.identity import described, leaves

_DEFAULTS = dict(leaves(described(ArmConfig())))
"""Field of `ArmConfig`, with those of its parts -> default."""

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
    unknown: bool = False
    """Whether a planned arm has no record, which may be the arm that the setting changes."""

    @property
    def own(self) -> bool:
        """Whether all levels are known to be those of the profile."""
        return bool(self.records) and not self.changed and not self.unknown

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
    planned = list(planned)
    by_setting: dict[str, list[Record]] = {}
    for label in planned:
        by_setting.setdefault(split_label(label)[1], [])
    for record in records:
        by_setting.setdefault(split_label(record.label)[1], []).append(record)
    unknown = {split_label(label)[1] for label in {*planned} - {record.label for record in records}}
    others = _other_factors(records)
    return [_setting(name, tuple(cells), others, name in unknown) for name, cells in by_setting.items() if name]


def _other_factors(records: Iterable[Record]) -> dict[str, dict[str, str]]:
    """Return arm -> name -> field of `ArmConfig`, for the fields beside `FACTORS` in which the arm's settings differ."""
    values: dict[tuple[str, str], set[str]] = {}
    for record in records:
        for name, value in record.config.items():
            if name.startswith("arm."):
                values.setdefault((split_label(record.label)[0], name.removeprefix("arm.")), set()).add(value)
    factors: dict[str, dict[str, str]] = {}
    for (arm, field), found in values.items():
        if len(found) > 1 and field not in FACTORS.values():
            factors.setdefault(arm, {})[field.replace("_", " ")] = field
    return factors


def _setting(name: str, records: tuple[Record, ...], others: Mapping[str, dict[str, str]], unknown: bool) -> Setting:
    factors = dict(FACTORS)
    for fields in others.values():
        factors |= fields
    if not records:
        return Setting(name, dict.fromkeys(factors, math.nan), {}, (), unknown)
    changed: dict[str, Level] = {}
    for record in records:  # an arm that the setting does not change says nothing about it
        changed = _changed(record.config, FACTORS | others.get(split_label(record.label)[0], {})) | changed
    levels = {factor: _profile_value(records[0].config, field) for factor, field in factors.items()}
    return Setting(name, levels | changed, changed, records, unknown)


def _changed(params: Mapping[str, str], factors: Mapping[str, str]) -> dict[str, Level]:
    """Return factor -> level for the factors in which a cell's arm differs from its profile."""
    levels = {factor: _value(params, f"arm.{field}", field) for factor, field in factors.items()}
    return {
        factor: level if isinstance(level, int | float | str) else json.dumps(level)
        for factor, level in levels.items()
        if level not in (_DEFAULTS.get(factors[factor]), _profile_value(params, factors[factor]))
    }


def _value(params: Mapping[str, str], name: str, field: str) -> Any:
    """Return the value of a param, or the default of a field of `ArmConfig` if it was not recorded."""
    return json.loads(params[name]) if name in params else _DEFAULTS.get(field)


def _profile_value(params: Mapping[str, str], field: str) -> Level:
    """Return the profile's value of a field, or the default of `ArmConfig` if the profile has none."""
    value: Level | None = _value(params, f"profile.{OVERRIDES.get(field, '')}", field)
    return math.nan if value is None else value


def default_suffix(selection: Selection) -> str:
    """Return ``@`` and the name of the default setting; empty without one."""
    return next((f"@{s.name}" for s in settings(selection.records, selection.planned) if s.own), "")


def plain(selection: Selection) -> tuple[Selection, str]:
    """Return the records shown arm by arm in figures and audio, and a sentence for their captions.

    For a grid that has plain arms these are all records. For a grid of settings they are those of the default setting (or the
    first one), under the arms' plain names.
    """
    all_settings = settings(selection.records, selection.planned)
    if not all_settings or any(not split_label(record.label)[1] for record in selection.records):
        return selection, ""
    chosen = next((s for s in all_settings if s.own), next(s for s in all_settings if s.records))
    records = tuple(replace(r, label=split_label(r.label)[0]) for r in chosen.records)
    lost = {
        (split_label(arm)[0], seed): kind
        for (arm, seed), kind in selection.lost.items()
        if split_label(arm)[1] == chosen.name
    }
    planned = dict(Counter([*(record.label for record in records), *(arm for arm, _ in lost)]))
    plans = (selection.planned_in(chosen.name),)
    selected = replace(selection, records=records, planned=planned, lost=lost, plans=plans)
    return selected, f"Setting: {chosen.name}, of {len(all_settings)}."

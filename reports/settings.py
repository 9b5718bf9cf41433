"""Grids of settings: the same arms with other data or another reward model, labelled ``arm@setting``.

A setting is told by what its arms override; the *world's own* is the one whose values are the profile's.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ablations.grids import split_label
from ablations.tracking.records import Record
from reports.loading import Selection

FACTORS: dict[str, tuple[str, str]] = {
    "rater noise": ("arm.rater_noise", "profile.rater_noise"),
    "planted shortcut": ("arm.shortcut", "profile.shortcut"),
    "RM learning rate": ("arm.rm_lr", "profile.finetune.lr"),
}
"""What settings differ in: the param by which an arm overrides it, and the profile's own."""
SHORTCUT = "planted shortcut"


@dataclass(frozen=True)
class Setting:
    """One setting of a grid."""

    name: str
    """After the ``@`` in the labels of its arms."""
    levels: Mapping[str, float]
    """By the names of `FACTORS`."""
    own: bool
    """Whether all levels are the profile's."""
    records: tuple[Record, ...]
    """Of its cells."""

    @property
    def arms(self) -> set[str]:
        """Names without the setting."""
        return {split_label(record.label)[0] for record in self.records}

    def weights(self, contrast: Mapping[str, float]) -> dict[str, float]:
        """A contrast of arms as one of this setting's labels."""
        return {f"{arm}@{self.name}": weight for arm, weight in contrast.items()}


def settings(records: Sequence[Record], planned: Iterable[str] = ()) -> list[Setting]:
    """All settings of a grid in its order; none for a grid of plain arms. One of which only the labels are ``planned`` has no
    records, and NaN for its levels."""
    own: dict[str, list[Record]] = {}
    for label in planned:
        own.setdefault(split_label(label)[1], [])
    for record in records:
        own.setdefault(split_label(record.label)[1], []).append(record)
    return [_setting(name, tuple(found)) for name, found in own.items() if name]


def _setting(name: str, records: tuple[Record, ...]) -> Setting:
    if not records:
        return Setting(name, dict.fromkeys(FACTORS, math.nan), False, ())
    params = records[0].config
    levels, profiles = {}, {}
    for factor, (arm, profile) in FACTORS.items():
        profiles[factor] = json.loads(params.get(profile, "null"))
        given = json.loads(params.get(arm, "null"))
        levels[factor] = profiles[factor] if given is None else given
    return Setting(name, levels, levels == profiles, records)


def varied(found: Sequence[Setting]) -> list[str]:
    """The factors that the settings with records differ in."""
    return [factor for factor in FACTORS if len({s.levels[factor] for s in found if s.records}) > 1]


def plain(selection: Selection) -> tuple[Selection, str]:
    """What is shown arm by arm in figures and audio, and what captions say of it: all of a grid of plain arms; of a grid of
    settings the world's own (or the first), under the arms' own names."""
    found = settings(selection.records)
    if not found:
        return selection, ""
    one = next((setting for setting in found if setting.own), found[0])
    records = tuple(replace(r, label=split_label(r.label)[0]) for r in one.records)
    lost = {
        (split_label(arm)[0], seed): kind
        for (arm, seed), kind in selection.lost.items()
        if split_label(arm)[1] == one.name
    }
    planned = dict(Counter([*(record.label for record in records), *(arm for arm, _ in lost)]))
    here = replace(selection, records=records, planned=planned, lost=lost)
    return here, f"Setting: {one.name}, of {len(found)}."

"""Grids of settings: the same arms with other data or another reward model, labelled ``arm@setting``.

A setting is told by what its arms override; the *world's own* is the one whose values are the profile's.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ablations.grids import OVERRIDES, split_label
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
"""What settings differ in, and the field of `ArmConfig` that says so, a key of `ablations.grids.OVERRIDES`."""
SHORTCUT = "planted shortcut"
Level = float | str
"""Of a factor; NaN where it is not known."""


@dataclass(frozen=True)
class Setting:
    """One setting of a grid."""

    name: str
    """After the ``@`` in the labels of its arms."""
    levels: Mapping[str, Level]
    """By the names of `FACTORS`."""
    changed: Mapping[str, Level]
    """Those that are not the profile's own."""
    records: tuple[Record, ...]
    """Of its cells."""

    @property
    def own(self) -> bool:
        """Whether all levels are known to be the profile's."""
        return bool(self.records) and not self.changed

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
        return Setting(name, dict.fromkeys(FACTORS, math.nan), {}, ())
    changed: dict[str, Level] = {}
    for record in records:  # an arm that a setting leaves as it is tells nothing of it
        changed = _changed(record.config) | changed
    own = {factor: _own(records[0].config, field) for factor, field in FACTORS.items()}
    return Setting(name, own | changed, changed, records)


def _changed(params: Mapping[str, str]) -> dict[str, Level]:
    """The factors that a cell's arm sets to something else than its profile, with their levels."""
    given = {f: json.loads(params.get(f"arm.{field}", json.dumps(_DEFAULTS[field]))) for f, field in FACTORS.items()}
    return {
        factor: level
        for factor, level in given.items()
        if level not in (_DEFAULTS[FACTORS[factor]], _own(params, FACTORS[factor]))
    }


def _own(params: Mapping[str, str], field: str) -> Level:
    """What a cell's profile has, or else arms in general."""
    found: Level | None = json.loads(params.get(f"profile.{OVERRIDES[field]}", json.dumps(_DEFAULTS[field])))
    return math.nan if found is None else found


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

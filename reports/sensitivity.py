"""Which conclusions of the primary family hold in which setting, in words.

In each setting the family is tested as in a grid of its own (`reports.verdicts`). Where settings hold single components alone, a
component's conclusion is its effect when added to DiffRO, and the name says so.
Settings are not adjusted for one another: this is a sensitivity analysis, and secondary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ablations.rendering.sheet import NONE, Column, Sheet, Value, show
from ablations.stats.contrasts import OVERALL
from ablations.stats.family import family, margin_text, primary
from ablations.stats.statistics import Interval, t_interval
from reports import manipulation
from reports.loading import Selection
from reports.settings import Setting, settings
from reports.verdicts import BETTER, EQUIVALENT, INTERIM, SMALL, UNDECIDED, WORSE, judge, word

CLAIMS = (BETTER, EQUIVALENT, WORSE)
"""Words that could survive in another setting."""
NAMED = 3
"""Most settings that a sentence lists by name."""
UNTESTED = "Interim, without a test: cells are missing, or no number of seeds was planned."
SINGLE = "'Added to DiffRO' stands in for a main effect, which needs the whole factorial in every setting."


@dataclass(frozen=True)
class Finding:
    """One conclusion in one setting."""

    conclusion: str
    """Which contrast."""
    setting: Setting
    """Where."""
    mean: Interval
    """The primary outcome's difference over seeds, simultaneous over the setting's conclusions."""
    verdict: str
    """As in the first table of a grid of plain arms."""

    @property
    def word(self) -> str:
        """The verdict without its bracket."""
        return word(self.verdict)


def findings(selection: Selection) -> list[Finding]:
    """Every conclusion in every setting, setting by setting; none for a grid of plain arms."""
    made = []
    for setting in settings(selection.records, selection.planned):
        contrasts = {name: setting.weights(w) for name, w in selection.tested.get(setting.name, {}).items()}
        failed = [name for name, one in manipulation.checks(setting.records, contrasts).items() if one.failed]
        judged = judge(selection, setting.records, contrasts, failed)
        made += [Finding(name, setting, one.interval, one.verdict) for name, one in judged.items()]
    return made


def sheets(found: Sequence[Finding]) -> list[Sheet]:
    """``survival``, a row a conclusion, and ``settings``, a row a setting; nothing without two settings."""
    places = list(dict.fromkeys(finding.setting.name for finding in found))
    if len(places) < 2:
        return []
    names = list(dict.fromkeys(finding.conclusion for finding in found))
    rows = [_counted([f for f in found if f.conclusion == name]) for name in names]
    columns = (
        Column("conclusion", "conclusion"),
        Column("points", "in the world's own setting, points", "gain"),
        Column("verdict", "verdict there"),
        Column("survives", "survives in"),
        *(Column(word, word, "count") for word in (*CLAIMS, UNDECIDED)),
        Column("none", "no verdict", "count"),
    )
    notes = (
        f"{primary().title} within each setting, paired differences over seeds ± half the t-interval that is simultaneous over "
        f"the setting's {len(names)} conclusions, at the planned number of seeds: one without 0 is better or worse, within "
        f"±{margin_text()} equivalent. Survives: the same verdict; counted over the other settings. Settings are not adjusted "
        "for one another: secondary.",
        *(f"{name}: {words(name, found)}" for name in names),
        *([SINGLE] if any(name not in family() for name in names) else []),
        *([UNTESTED] if any(finding.verdict == INTERIM for finding in found) else []),
    )
    return [Sheet("survival", "Which conclusions survive", columns, tuple(rows), notes), _by_setting(found, names)]


def _counted(mine: Sequence[Finding]) -> tuple[Value, ...]:
    """One conclusion's row: what holds in the world's own setting, and how many of the others say what."""
    own, others = _split(mine)
    same = sum(f.word == own.word for f in others) if own else 0
    survives = f"{same} of {len(others)}" if own and own.word in CLAIMS else NONE
    counts = [float(sum(f.word == word for f in others)) for word in (*CLAIMS, UNDECIDED)]
    counts.append(len(others) - sum(counts))
    if any(f.verdict == INTERIM for f in mine):
        counts = [math.nan] * len(counts)
    here = (own.mean, own.verdict) if own else (t_interval([]), "not run")
    return (mine[0].conclusion, *here, survives, *counts)


def _by_setting(found: Sequence[Finding], names: Sequence[str]) -> Sheet:
    """Every estimate and verdict."""
    places = {finding.setting.name: finding.setting for finding in found}
    by = {(finding.setting.name, finding.conclusion): finding for finding in found}
    columns = [Column("setting", "setting"), Column("changed", "changed")]
    for name in names:
        short = name.lower().replace(",", "").replace(" - ", "_").replace(" ", "_")
        columns += [Column(short, f"{name}, points", "gain"), Column(f"{short}_verdict", "verdict")]
    rows: list[tuple[Value, ...]] = []
    for place, setting in places.items():
        cells = [value for name in names for value in (by[place, name].mean, by[place, name].verdict)]
        title = f"{place} *" if setting.own else place
        changed = ", ".join(f"{factor} {show(level, 'level')}" for factor, level in setting.changed.items())
        rows.append((title, changed, *cells))
    return Sheet(
        "settings",
        "Conclusions by setting",
        tuple(columns),
        tuple(rows),
        (f"*: the world's own. n = {_numbers(found)} seeds.",),
    )


def _numbers(found: Sequence[Finding]) -> str:
    """How many seeds the differences rest on: ``5``, or ``4 to 5``."""
    n = [finding.mean.n for finding in found]
    return f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"


def _split(own: Sequence[Finding]) -> tuple[Finding | None, list[Finding]]:
    """The world's own setting, and the others."""
    return next((f for f in own if f.setting.own), None), [f for f in own if not f.setting.own]


def words(name: str, found: Sequence[Finding]) -> str:
    """One conclusion over all settings, a sentence."""
    mine = [finding for finding in found if finding.conclusion == name]
    own, others = _split(mine)
    if any(finding.verdict == INTERIM for finding in mine):
        means = [finding.mean for finding in mine if finding.mean.n]
        above, up, down = sum(m.mean > 0 for m in means), sum(m.low > 0 for m in means), sum(m.high < 0 for m in means)
        return (
            f"Interim, not tested, n = {_numbers(mine)}, the same seeds in all settings, which so do not confirm one another: "
            f"above zero in {above} of {len(means)} settings, the interval lies above it in {up}, below it in {down}."
        )
    if own is None:
        return f"The world's own setting was not run. {_listed(others)}."
    if own.word not in CLAIMS:
        return f"Nothing to survive: {own.verdict} in the world's own setting. Others: {_listed(others)}."
    same = [finding for finding in others if finding.word == own.word]
    rest = [finding for finding in others if finding.word != own.word]
    said = f"{own.verdict.capitalize()} in the world's own setting, and in {len(same)} of {len(others)} others"
    if small := sum(finding.verdict.endswith(SMALL) for finding in same):
        said += f" (in {small} of them by less than {margin_text()})"
    turned = {"better": "worse", "worse": "better"}.get(own.word)
    if any(finding.word == turned for finding in rest):
        said += "; it turns round in " + ", ".join(f.setting.name for f in rest if f.word == turned)
    left = [finding for finding in rest if finding.word != turned]
    return f"{said}; {_listed(left)}." if left else f"{said}."


def _listed(some: Sequence[Finding]) -> str:
    """``undecided in a, b; equivalent in 5 settings``: named where they are few."""
    by: dict[str, list[str]] = {}
    for finding in some:
        said = UNDECIDED if finding.word == UNDECIDED else finding.verdict
        by.setdefault(said, []).append(finding.setting.name)
    where = {
        verdict: ", ".join(places) if len(places) <= NAMED else f"{len(places)} settings"
        for verdict, places in by.items()
    }
    return "; ".join(f"{verdict} in {places}" for verdict, places in where.items()) or "none"


def verdict(found: Sequence[Finding], heard: str) -> list[str]:
    """Three sentences of a report on a grid of settings; none for another grid."""
    if not sheets(found):
        return []
    names = list(dict.fromkeys(finding.conclusion for finding in found))
    whole = [f"{name}: {words(name, found)}" for name in names if name == OVERALL]
    parts = [f"{name}: {words(name, found)}" for name in names if name != OVERALL]
    return [*whole, *([" ".join(parts)] if parts else []), heard]

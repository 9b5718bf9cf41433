"""Table and sentences on which conclusions of the primary family hold in which setting.

In each setting the family is tested as in a separate grid (`reports.verdicts`). If the settings contain only single components,
a component's conclusion is its effect when added to DiffRO, and is named accordingly. There is no correction over settings:
this is a sensitivity analysis, and secondary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablations.rendering.sheet import Column, Sheet, Value, show
from ablations.stats.contrasts import OVERALL
from ablations.stats.family import family, margin_text, primary
from ablations.stats.statistics import Interval
from reports import manipulation
from reports.loading import Selection
from reports.settings import Setting, settings
from reports.verdicts import BETTER, EQUIVALENT, INTERIM, SMALL, UNDECIDED, WORSE, judge, word

CLAIMS = (BETTER, EQUIVALENT, WORSE)
"""Verdicts that can hold in another setting."""
NAMED = 3
"""Maximum number of settings that a sentence lists by name."""
UNTESTED = "Interim, not tested: cells are missing, or no number of seeds was planned."
SINGLE = "'Added to DiffRO' replaces the main effect, which would require the complete factorial in every setting."


@dataclass(frozen=True)
class Finding:
    """One conclusion in one setting."""

    conclusion: str
    """Name of the contrast."""
    setting: Setting
    """Setting of the finding."""
    mean: Interval
    """Difference in the primary outcome over seeds, simultaneous over the setting's conclusions."""
    verdict: str
    """Verdict, as in the first table of a grid of plain arms."""

    @property
    def word(self) -> str:
        """The verdict without the part in parentheses."""
        return word(self.verdict)


def findings(selection: Selection) -> list[Finding]:
    """Return every conclusion in every setting, grouped by setting; empty for a grid of plain arms."""
    made = []
    for setting in settings(selection.records, selection.planned):
        contrasts = {name: setting.weights(w) for name, w in selection.tested.get(setting.name, {}).items()}
        failed = [name for name, one in manipulation.checks(setting.records, contrasts).items() if one.failed]
        judged = judge(selection, setting.records, contrasts, failed)
        made += [Finding(one.name, setting, one.interval, one.verdict) for one in judged]
    return made


def sheet(found: Sequence[Finding]) -> Sheet | None:
    """Return the table of every estimate and verdict, one row per setting; None below two settings."""
    places = {finding.setting.name: finding.setting for finding in found}
    if len(places) < 2:
        return None
    names = list(dict.fromkeys(finding.conclusion for finding in found))
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
    notes = (
        f"*: default setting. n = {_numbers(found)} seeds.",
        f"{primary().title} within each setting: paired differences over seeds ± half the t-interval, simultaneous "
        f"over the setting's {len(names)} conclusions, at the planned number of seeds. An interval that excludes 0: "
        f"better or worse; within ±{margin_text()}: equivalent. No correction over settings: secondary.",
        *(f"{name}: {words(name, found)}" for name in names),
        *([SINGLE] if any(name not in family() for name in names) else []),
        *([UNTESTED] if any(finding.verdict == INTERIM for finding in found) else []),
    )
    return Sheet("settings", "Which conclusions hold in which setting", tuple(columns), tuple(rows), notes)


def _numbers(found: Sequence[Finding]) -> str:
    """Return the number of seeds of the differences: ``5``, or ``4 to 5``."""
    n = [finding.mean.n for finding in found]
    return f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"


def _split(own: Sequence[Finding]) -> tuple[Finding | None, list[Finding]]:
    """Return the default setting (None if it was not run), and the others."""
    return next((f for f in own if f.setting.own), None), [f for f in own if not f.setting.own]


def words(name: str, found: Sequence[Finding]) -> str:
    """Return a sentence on one conclusion over all settings."""
    mine = [finding for finding in found if finding.conclusion == name]
    own, others = _split(mine)
    if any(finding.verdict == INTERIM for finding in mine):
        means = [finding.mean for finding in mine if finding.mean.n]
        above, up, down = sum(m.mean > 0 for m in means), sum(m.low > 0 for m in means), sum(m.high < 0 for m in means)
        return (
            f"Interim, not tested, n = {_numbers(mine)}, with the same seeds in all settings, so settings do not "
            f"confirm each other: the estimate is above zero in {above} of {len(means)} settings, its interval lies "
            f"above zero in {up} and below in {down}."
        )
    if own is None:
        return f"The default setting was not run. {_listed(others)}."
    if own.word not in CLAIMS:
        return f"No conclusion in the default setting: {own.verdict}. Other settings: {_listed(others)}."
    same = [finding for finding in others if finding.word == own.word]
    rest = [finding for finding in others if finding.word != own.word]
    said = f"{own.verdict.capitalize()} in the default setting, and in {len(same)} of {len(others)} others"
    if small := sum(finding.verdict.endswith(SMALL) for finding in same):
        said += f" (in {small} of them by less than {margin_text()})"
    turned = {"better": "worse", "worse": "better"}.get(own.word)
    if any(finding.word == turned for finding in rest):
        said += "; reversed in " + ", ".join(f.setting.name for f in rest if f.word == turned)
    left = [finding for finding in rest if finding.word != turned]
    return f"{said}; {_listed(left)}." if left else f"{said}."


def _listed(some: Sequence[Finding]) -> str:
    """Return, for example, ``undecided in a, b; equivalent in 5 settings``; few settings are named, many are counted."""
    by: dict[str, list[str]] = {}
    for finding in some:
        said = UNDECIDED if finding.word == UNDECIDED else finding.verdict
        by.setdefault(said, []).append(finding.setting.name)
    where = {
        verdict: ", ".join(places) if len(places) <= NAMED else f"{len(places)} settings"
        for verdict, places in by.items()
    }
    return "; ".join(f"{verdict} in {places}" for verdict, places in where.items()) or "none"


def verdict(found: Sequence[Finding], listened: str) -> list[str]:
    """Return the answer for a grid of settings: RRPO - DiffRO, the components, and who has listened; empty for another grid."""
    if sheet(found) is None:
        return []
    names = list(dict.fromkeys(finding.conclusion for finding in found))
    whole = [f"{name}: {words(name, found)}" for name in names if name == OVERALL]
    parts = [f"{name}: {words(name, found)}" for name in names if name != OVERALL]
    return [*whole, *([" ".join(parts)] if parts else []), listened]

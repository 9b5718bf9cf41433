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
from reports import reward_models
from reports.loading import Selection
from reports.settings import Setting, settings
from reports.verdicts import INTERIM, UNDECIDED, Row, judge

NAMED = 3
"""Maximum number of settings that a sentence lists by name."""
UNTESTED = "Interim, not tested: cells are missing, or no number of seeds was planned."
SINGLE = "'Added to DiffRO' replaces the main effect, which would require the complete factorial in every setting."


@dataclass(frozen=True)
class Finding(Row):
    """One conclusion in one setting; its interval is simultaneous over the setting's conclusions."""

    setting: Setting
    """Setting of the finding."""


def findings(selection: Selection) -> list[Finding]:
    """Return every conclusion in every setting, grouped by setting; empty for a grid of plain arms."""
    results = []
    for setting in settings(selection.records, selection.planned):
        contrasts = {name: setting.weights(weights) for name, weights in selection.tested.get(setting.name, {}).items()}
        failed = [name for name, check in reward_models.checks(setting.records, contrasts).items() if check.failed]
        judged = judge(selection, setting.records, contrasts, failed)
        results += [Finding(**vars(row), setting=setting) for row in judged]
    return results


def sheet(findings: Sequence[Finding]) -> Sheet | None:
    """Return the table of every estimate and verdict, one row per setting; None below two settings."""
    places = {finding.setting.name: finding.setting for finding in findings}
    if len(places) < 2:
        return None
    names = list(dict.fromkeys(finding.name for finding in findings))
    by_setting = {(finding.setting.name, finding.name): finding for finding in findings}
    columns = {name: name.lower().replace(",", "").replace(" - ", "_").replace(" ", "_") for name in names}
    rows: list[dict[Column, Value]] = []
    for label, setting in places.items():
        changed = ", ".join(f"{factor} {show(level, 'level')}" for factor, level in setting.changed.items())
        row: dict[Column, Value] = {Column("setting", "setting"): f"{label} *" if setting.own else label}
        row[Column("changed", "changed")] = changed
        for name, column in columns.items():
            row[Column(column, f"{name}, points", "gain")] = by_setting[label, name].interval
            row[Column(f"{column}_verdict", "verdict")] = by_setting[label, name].verdict
        rows.append(row)
    notes = (
        f"*: default setting. n = {_numbers(findings)} seeds.",
        f"{primary().title} within each setting: paired differences over seeds ± half the t-interval, simultaneous "
        f"over the setting's {len(names)} conclusions, at the planned number of seeds. An interval that excludes 0: "
        f"better or worse; within ±{margin_text()}: equivalent. No correction over settings: secondary.",
        *(f"{name}: {words(name, findings)}" for name in names),
        *([SINGLE] if any(name not in family() for name in names) else []),
        *([UNTESTED] if any(finding.verdict == INTERIM for finding in findings) else []),
    )
    return Sheet.of("settings", "Which conclusions hold in which setting", rows, *notes)


def _numbers(findings: Sequence[Finding]) -> str:
    """Return the number of seeds of the differences: ``5``, or ``4 to 5``."""
    n = [finding.interval.n for finding in findings]
    return f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"


def words(name: str, findings: Sequence[Finding]) -> str:
    """Return a sentence on one conclusion over all settings."""
    same_conclusion = [finding for finding in findings if finding.name == name]
    if any(finding.verdict == INTERIM for finding in same_conclusion):
        means = [finding.interval for finding in same_conclusion if finding.interval.n]
        above, up, down = (
            sum(x > 0 for x in xs) for xs in ([m.mean for m in means], [m.low for m in means], [-m.high for m in means])
        )
        return (
            f"Interim, not tested, n = {_numbers(same_conclusion)}, with the same seeds in all settings, so settings do not "
            f"confirm each other: the estimate is above zero in {above} of {len(means)} settings, its interval lies "
            f"above zero in {up} and below in {down}."
        )
    default = next((f"{f.verdict.capitalize()} in the default setting" for f in same_conclusion if f.setting.own), "")
    settings_of: dict[str, list[str]] = {}
    for finding in (finding for finding in same_conclusion if not finding.setting.own):
        phrase = UNDECIDED if finding.word == UNDECIDED else finding.verdict
        settings_of.setdefault(phrase, []).append(finding.setting.name)
    listed = [
        f"{verdict} in {', '.join(names) if len(names) <= NAMED else f'{len(names)} settings'}"
        for verdict, names in settings_of.items()
    ]
    return f"{default or 'The default setting was not run'}. Other settings: {'; '.join(listed) or 'none'}."


def verdict(findings: Sequence[Finding], listened: str) -> list[str]:
    """Return the answer for a grid of settings: RRPO - DiffRO, the components, and who has listened; empty for another grid."""
    if sheet(findings) is None:
        return []
    names = list(dict.fromkeys(finding.name for finding in findings))
    overall = [f"{name}: {words(name, findings)}" for name in names if name == OVERALL]
    parts = [f"{name}: {words(name, findings)}" for name in names if name != OVERALL]
    return [*overall, *([" ".join(parts)] if parts else []), listened]

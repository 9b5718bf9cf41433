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
from reports import reward_models
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
    results = []
    for setting in settings(selection.records, selection.planned):
        contrasts = {name: setting.weights(weights) for name, weights in selection.tested.get(setting.name, {}).items()}
        failed = [name for name, check in reward_models.checks(setting.records, contrasts).items() if check.failed]
        judged = judge(selection, setting.records, contrasts, failed)
        results += [Finding(row.name, setting, row.interval, row.verdict) for row in judged]
    return results


def sheet(findings: Sequence[Finding]) -> Sheet | None:
    """Return the table of every estimate and verdict, one row per setting; None below two settings."""
    places = {finding.setting.name: finding.setting for finding in findings}
    if len(places) < 2:
        return None
    names = list(dict.fromkeys(finding.conclusion for finding in findings))
    by_setting = {(finding.setting.name, finding.conclusion): finding for finding in findings}
    columns = [Column("setting", "setting"), Column("changed", "changed")]
    for name in names:
        short = name.lower().replace(",", "").replace(" - ", "_").replace(" ", "_")
        columns += [Column(short, f"{name}, points", "gain"), Column(f"{short}_verdict", "verdict")]
    rows: list[tuple[Value, ...]] = []
    for label, setting in places.items():
        cells = [value for name in names for value in (by_setting[label, name].mean, by_setting[label, name].verdict)]
        title = f"{label} *" if setting.own else label
        changed = ", ".join(f"{factor} {show(level, 'level')}" for factor, level in setting.changed.items())
        rows.append((title, changed, *cells))
    notes = (
        f"*: default setting. n = {_numbers(findings)} seeds.",
        f"{primary().title} within each setting: paired differences over seeds ± half the t-interval, simultaneous "
        f"over the setting's {len(names)} conclusions, at the planned number of seeds. An interval that excludes 0: "
        f"better or worse; within ±{margin_text()}: equivalent. No correction over settings: secondary.",
        *(f"{name}: {words(name, findings)}" for name in names),
        *([SINGLE] if any(name not in family() for name in names) else []),
        *([UNTESTED] if any(finding.verdict == INTERIM for finding in findings) else []),
    )
    return Sheet("settings", "Which conclusions hold in which setting", tuple(columns), tuple(rows), notes)


def _numbers(findings: Sequence[Finding]) -> str:
    """Return the number of seeds of the differences: ``5``, or ``4 to 5``."""
    n = [finding.mean.n for finding in findings]
    return f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"


def _default_and_others(findings: Sequence[Finding]) -> tuple[Finding | None, list[Finding]]:
    """Return the default setting (None if it was not run), and the others."""
    return next((f for f in findings if f.setting.own), None), [f for f in findings if not f.setting.own]


def words(name: str, findings: Sequence[Finding]) -> str:
    """Return a sentence on one conclusion over all settings."""
    same_conclusion = [finding for finding in findings if finding.conclusion == name]
    default, others = _default_and_others(same_conclusion)
    if any(finding.verdict == INTERIM for finding in same_conclusion):
        means = [finding.mean for finding in same_conclusion if finding.mean.n]
        above, up, down = (
            sum(mean.mean > 0 for mean in means),
            sum(mean.low > 0 for mean in means),
            sum(mean.high < 0 for mean in means),
        )
        return (
            f"Interim, not tested, n = {_numbers(same_conclusion)}, with the same seeds in all settings, so settings do not "
            f"confirm each other: the estimate is above zero in {above} of {len(means)} settings, its interval lies "
            f"above zero in {up} and below in {down}."
        )
    if default is None:
        return f"The default setting was not run. {_verdict_counts(others)}."
    if default.word not in CLAIMS:
        return f"No conclusion in the default setting: {default.verdict}. Other settings: {_verdict_counts(others)}."
    same = [finding for finding in others if finding.word == default.word]
    differing = [finding for finding in others if finding.word != default.word]
    sentence = f"{default.verdict.capitalize()} in the default setting, and in {len(same)} of {len(others)} others"
    if small := sum(finding.verdict.endswith(SMALL) for finding in same):
        sentence += f" (in {small} of them by less than {margin_text()})"
    opposite = {"better": "worse", "worse": "better"}.get(default.word)
    if any(finding.word == opposite for finding in differing):
        sentence += "; reversed in " + ", ".join(f.setting.name for f in differing if f.word == opposite)
    remaining = [finding for finding in differing if finding.word != opposite]
    return f"{sentence}; {_verdict_counts(remaining)}." if remaining else f"{sentence}."


def _verdict_counts(findings: Sequence[Finding]) -> str:
    """Return, for example, ``undecided in a, b; equivalent in 5 settings``; few settings are named, many are counted."""
    settings_of: dict[str, list[str]] = {}
    for finding in findings:
        phrase = UNDECIDED if finding.word == UNDECIDED else finding.verdict
        settings_of.setdefault(phrase, []).append(finding.setting.name)
    listed = {
        verdict: ", ".join(places) if len(places) <= NAMED else f"{len(places)} settings"
        for verdict, places in settings_of.items()
    }
    return "; ".join(f"{verdict} in {places}" for verdict, places in listed.items()) or "none"


def verdict(findings: Sequence[Finding], listened: str) -> list[str]:
    """Return the answer for a grid of settings: RRPO - DiffRO, the components, and who has listened; empty for another grid."""
    if sheet(findings) is None:
        return []
    names = list(dict.fromkeys(finding.conclusion for finding in findings))
    overall = [f"{name}: {words(name, findings)}" for name in names if name == OVERALL]
    parts = [f"{name}: {words(name, findings)}" for name in names if name != OVERALL]
    return [*overall, *([" ".join(parts)] if parts else []), listened]

"""Tables and sentences of a grid of settings: which conclusions of the primary family hold where, and uptake of the shortcut.

In each setting the family is tested as in a separate grid (`reports.verdicts`). If the settings contain only single components,
a component's conclusion is its effect when added to DiffRO, and is named accordingly. There is no correction over settings:
this is a sensitivity analysis, and secondary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value, show
from ablations.rendering.summary import ARM, N, seeds_of
from ablations.stats.contrasts import OVERALL, Weights, apply
from ablations.stats.family import BESIDE, DIVERGED, family, margin_text, primary
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports import manipulation
from reports.effects import ORACLE, estimates, of_primary, secondary
from reports.loading import Selection
from reports.settings import SHORTCUT, Setting, settings
from reports.verdicts import CONTRAST, INTERIM, UNDECIDED, Row, judge, simultaneous, without_diverged
from rrpo.arms import BASE

NAMED = 3
"""Maximum number of settings that a sentence lists by name."""
UNTESTED = "Interim, not tested: planned cells are missing, or fewer than two seeds are planned."
DEPENDENT = (
    "All settings have the same seeds, SFT policies and prompts, so they do not confirm each other. Cells that another grid has "
    "too are the same cells, and no replication."
)
SINGLE = "'Added to DiffRO' replaces the main effect, which would require the complete factorial in every setting."


@dataclass(frozen=True)
class Finding(Row):
    """One conclusion in one setting; its interval is simultaneous over the setting's conclusions."""

    setting: Setting
    """Setting of the finding."""
    check: manipulation.Checked | None
    """Manipulation check of its component in the setting; None for RRPO - DiffRO."""


def findings(selection: Selection, score: float = DIVERGED) -> list[Finding]:
    """Return every conclusion in every setting, grouped by setting; empty for a grid of plain arms.

    ``score`` is the primary outcome of a diverged cell; NaN excludes its seed.
    """
    results = []
    for setting in settings(selection.records, selection.planned):
        contrasts = {name: setting.weights(weights) for name, weights in selection.tested.get(setting.name, {}).items()}
        checks = manipulation.checks(setting.records, contrasts)
        failed = [name for name, check in checks.items() if check.failed]
        judged = judge(selection, setting.records, contrasts, failed, score)
        results += [Finding(**vars(row), setting=setting, check=checks.get(row.name)) for row in judged]
    return results


def sheet(findings: Sequence[Finding]) -> Sheet | None:
    """Return the table of every estimate and verdict, one row per setting; None if there are none."""
    places = {finding.setting.name: finding.setting for finding in findings}
    if not places:
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
    several = (
        f"simultaneous over the setting's {len(names)} contrasts" if len(names) > 1 else "for one contrast a setting"
    )
    notes = (
        f"*: default setting. n = {seeds_of(finding.interval for finding in findings)} seeds.",
        f"{primary().title} within each setting: paired differences over seeds ± half the t-interval, {several} "
        f"({100 * simultaneous(names):.4g} %), at the planned number of seeds. An interval that excludes 0: better or worse; "
        f"within ±{margin_text()}: equivalent. No correction over settings: secondary. A diverged cell counts as "
        f"{primary().label} 0.",
        DEPENDENT,
        *([SINGLE] if any(name not in family() for name in names) else []),
        *([UNTESTED] if any(finding.verdict == INTERIM for finding in findings) else []),
        *(note for label in places for note in _unchecked(label, findings)),
    )
    return Sheet.of("settings", "Conclusions by setting", rows, *notes)


def _unchecked(label: str, findings: Sequence[Finding]) -> list[str]:
    """Return which components are judged in a setting without a manipulation check."""
    here = [finding for finding in findings if finding.setting.name == label and finding.verdict != INTERIM]
    return manipulation.unchecked({finding.name: finding.check for finding in here if finding.check}, f" at {label}")


def outcomes(selection: Selection) -> Sheet | None:
    """Return the tested contrasts and oracle - DiffRO in each setting, in the primary outcome and `BESIDE`; None for a grid of
    plain arms."""
    known = settings(selection.records, selection.planned)
    to_oracle = {name: weights for name, weights in secondary().items() if ORACLE in weights}
    body = []
    for setting in known:
        tested = selection.tested.get(setting.name, {})
        contrasts = {name: setting.weights(weights) for name, weights in (tested | to_oracle).items()}
        body += _rows(selection, setting, contrasts)
    note = (
        "Differences within seeds at the last update, in each setting by itself: mean ± half the unadjusted 95 % t-interval. "
        f"Estimates, not tested. {DEPENDENT}"
    )
    return (
        Sheet.of("by_setting", "Contrasts by setting, several outcomes", body, note, primary().note) if body else None
    )


def changes(selection: Selection) -> Sheet | None:
    """Return by how much DiffRO and each contrast differ from the default setting's, paired by seed; None without a default
    setting and another one.

    A verdict in one setting and none in another is no difference between the two; this table estimates the difference.
    """
    known = settings(selection.records, selection.planned)
    default = next((setting for setting in known if setting.own), None)
    if default is None:
        return None
    body = []
    for setting in (setting for setting in known if setting != default):
        contrasts = {}
        for name, weights in ({"DiffRO": {BASE: 1.0}} | selection.tested.get(setting.name, {})).items():
            minus = {label: -weight for label, weight in default.weights(weights).items()}
            contrasts[name] = setting.weights(weights) | minus
        body += _rows(selection, setting, contrasts)
    note = (
        f"DiffRO, and each contrast, minus the same in the default setting ({default.name}), within seeds at the last update: "
        f"mean ± half the 95 % t-interval. Estimates, not tested, without a correction for their number. {DEPENDENT}"
    )
    return Sheet.of("changes", "Relative to the default setting", body, note, primary().note) if body else None


def _rows(selection: Selection, setting: Setting, contrasts: Mapping[str, Weights]) -> list[dict[Column, Value]]:
    """Return a row for each contrast of a setting that has a value: the primary outcome and `BESIDE`."""
    measured = [primary(), *map(find, BESIDE)]
    estimated = estimates(selection, contrasts, measured, selection.seeds(()))
    return [
        {
            Column("setting", "setting"): setting.name,
            CONTRAST: name,
            N: seeds_of(means.values()),
            **means,
        }
        for name, means in estimated.items()
        if of_primary(means).n
    ]


def words(name: str, findings: Sequence[Finding]) -> str:
    """Return a sentence on one conclusion over all settings: the estimates if all are interim, otherwise the verdicts."""
    same_conclusion = [finding for finding in findings if finding.name == name]
    if all(finding.verdict == INTERIM for finding in same_conclusion):
        means = [finding.interval for finding in same_conclusion if finding.interval.n]
        above, up, down = (
            sum(x > 0 for x in xs) for xs in ([m.mean for m in means], [m.low for m in means], [-m.high for m in means])
        )
        return (
            f"Interim, not tested, n = {seeds_of(f.interval for f in same_conclusion)}: the estimate is above zero in {above} "
            f"of {len(means)} settings, its interval lies above zero in {up} and below in {down}."
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
    if not default:
        return f"{'; '.join(listed).capitalize()} (no setting is known to be the default one)."
    return f"{default}. Other settings: {'; '.join(listed)}." if listed else f"{default}."


def answer(selection: Selection, known: Sequence[Finding]) -> list[str]:
    """Return the answer for a grid of settings: RRPO - DiffRO, the components, and the same without diverged cells if there are
    any; empty for another grid. ``known`` are the `findings`."""
    if sheet(known) is None:
        return []
    sentences = _conclusions(known)
    if selection.diverged:
        without = " ".join(_conclusions(findings(selection, math.nan)))
        sentences.append(without_diverged(selection, without))
    return sentences


def _conclusions(findings: Sequence[Finding]) -> list[str]:
    """Return a sentence on RRPO - DiffRO, and one text on the components."""
    names = list(dict.fromkeys(finding.name for finding in findings))
    overall = [f"{name}: {words(name, findings)}" for name in names if name == OVERALL]
    parts = [f"{name}: {words(name, findings)}" for name in names if name != OVERALL]
    return [*overall, *([" ".join(parts)] if parts else [])]


def uptake(records: Sequence[Record], planned: Iterable[str] = ()) -> Sheet | None:
    """Return uptake of the planted shortcut as a difference in differences over its strengths, one row per arm.

    Planted effect: an arm's shortcut uptake with the shortcut in its reward model's pre-training data minus its uptake without,
    within each seed. The difference in differences subtracts DiffRO's planted effect from an arm's. Below zero, the arm's
    component keeps the policy from the shortcut; anything else that the arm does to uptake (more artefacts of all kinds, for
    example) cancels. Only settings count in which the shortcut alone differs from the default; None unless DiffRO was run with
    and without it.
    """
    known = [setting for setting in settings(records, planned) if not setting.unknown]
    shortcut_settings = [setting for setting in known if set(setting.changed) <= {SHORTCUT}]
    by_strength = {float(setting.levels[SHORTCUT]): setting for setting in shortcut_settings}
    strengths = sorted(by_strength)
    if len(by_strength) < 2 or strengths[0] != 0 or not all(BASE in setting.arms for setting in shortcut_settings):
        return None
    outcomes = find("uptake").values(records)
    none, *planted = strengths
    arms = list(dict.fromkeys([BASE, *(arm for setting in shortcut_settings for arm in setting.arms)]))
    shared = [arm for arm in arms if all(arm in setting.arms for setting in shortcut_settings)]

    def row(arm: str) -> dict[Column, Value]:
        labels = [label for setting in shortcut_settings for label in setting.weights({arm: 1.0, BASE: 1.0})]
        seeds = sorted({seed for _, seed in outcomes if all((label, seed) in outcomes for label in labels)})

        def mean(*terms: tuple[float, dict[str, float]]) -> Interval:
            weights: dict[str, float] = {}
            for strength, contrast in terms:
                weights |= by_strength[strength].weights(contrast)
            return t_interval(apply(weights, outcomes, seeds))

        control = BASE if arm != BASE else ""  # DiffRO has no difference from itself
        levels = {Column(f"uptake_{s:g}", f"uptake at {s:g}, points", "gain"): mean((s, {arm: 1})) for s in strengths}
        effects = {
            Column(f"planted_{s:g}", f"{s:g} - {none:g}, points", "gain"): mean((s, {arm: 1}), (none, {arm: -1}))
            for s in planted
        }
        contrasts = {
            Column(f"did_{s:g}", f"{s:g} - {none:g}, minus DiffRO's, points", "gain"): mean(
                (s, {arm: 1, control: -1}), (none, {arm: -1, control: 1})
            )
            for s in planted
        }
        return {ARM: arm, N: float([*effects.values()][-1].n), **levels, **effects, **contrasts}

    dropped = [arm for arm in arms if arm not in shared]
    notes = (
        "Shortcut uptake: share of samples with emotion e's artefact if the target is e, minus this share if the "
        "target is another emotion, at the last checkpoint, by the strength of the shortcut planted in the RM's "
        "pre-training data; mean over seeds ± half the 95 % t-interval.",
        *([f"Not shown, because they lack a strength: {', '.join(dropped)}."] if dropped else []),
        "Planting changes more than an association: artefacts are more frequent in these data, and fewer utterances are without "
        "any.",
        f"Columns with '- {none:g}': effect of planting the shortcut, within each seed. 'Minus DiffRO's': difference "
        "in differences; below zero, the component keeps the policy from the shortcut. Secondary, not tested.",
    )
    return Sheet.of("uptake", "Shortcut uptake", map(row, shared), *notes)

"""Grids of settings: uptake of the planted shortcut, and which conclusions hold in which setting, on records with known
effects."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pandas as pd
import pytest
from stored import store_cells
from synthetic import Fake, with_part
from synthetic import record as plain

from ablations.components import COMPONENTS, factorial
from ablations.grids import GRIDS, Grid, arms, product, sensitivity, split_label
from ablations.rendering.sheet import Sheet
from ablations.stats.family import family
from ablations.stats.statistics import t_interval
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import check
from reports import effects, manipulation, reward_models, settings
from reports.loading import Selection, select
from reports.report import make
from reports.sensitivity import DEPENDENT, Finding, answer, changes, findings, outcomes, sheet, uptake, words
from rrpo.config import ArmConfig
from rrpo.experiment.cell import Cell
from rrpo.profiles import EMBEDDED, Profile

SINGLES = ("diffro", "ls", "eam", "adv", "rrpo")
WHOLE = tuple(factorial())
OWN = "noise0.3_shortcut0.9"
HELP = {"ls": 0.0, "eam": 0.12, "adv": -0.12}
"""Gain of each component in the default setting, additive."""


def record(
    arm: str, noise: float, shortcut: float, seed: int, clean: float, end: float = 0.0, **fields: object
) -> Fake:
    params = {"arm.rater_noise": str(noise), "arm.shortcut": str(shortcut), "arm.rm_lr": "null"}
    params |= {"profile.rater_noise": "0.3", "profile.shortcut": "0.9", "profile.finetune.lr": "0.0003"}
    cell = plain(
        f"{arm}@noise{noise:g}_shortcut{shortcut:g}", seed, clean, **({"params": params, "scalars": {}} | fields)
    )
    cell.points["uptake"] = [0.0, end]
    return cell


def grid(
    seeds: int = 6,
    arms: tuple[str, ...] = SINGLES,
    noise: float = 0.004,
    scalars: Callable[[str, int], dict[str, float]] = lambda label, seed: {},
    veto: Callable[[float], float | None] = lambda clean: None,
) -> list[Fake]:
    """EAM helps and Adv harms; with noisy raters neither has an effect; without the shortcut their effects are swapped."""
    rng = np.random.default_rng(0)
    records = []
    for rater_noise, shortcut, size in ((0.3, 0.9, 1.0), (0.6, 0.9, 0.0), (0.3, 0.0, -1.0)):
        for seed in range(seeds):
            for arm in arms:
                gain = size * sum(value for part, value in HELP.items() if with_part(arm, part))
                clean = 0.5 + gain + noise * rng.standard_normal()
                label = f"{arm}@noise{rater_noise:g}_shortcut{shortcut:g}"
                fields = {"scalars": scalars(label, seed), "veto": veto(clean)}
                records.append(record(arm, rater_noise, shortcut, seed, clean, **fields))
    return records


def selection_of(
    records: list[Fake],
    plans: tuple[int, ...] = (6,),
    lost: dict[tuple[str, int], str] | None = None,
    labels: list[str] | None = None,
) -> Selection:
    """Return a selection of records, complete by default."""
    planned = dict.fromkeys(labels or [r.label for r in records], 6)
    return Selection("sensitivity", tuple(records), planned, (), plans, lost=lost or {})


def verdicts_of(findings: list[Finding]) -> dict[tuple[str, str], str]:
    return {(finding.setting.name, finding.name): finding.verdict for finding in findings}


def test_conclusions_survive_vanish_or_turn_round():
    computed = findings(selection_of(grid()))
    verdicts = verdicts_of(computed)
    assert verdicts[OWN, "EAM, added to DiffRO"] == "better"
    assert verdicts[OWN, "Adv, added to DiffRO"] == "worse"
    assert verdicts["noise0.6_shortcut0.9", "EAM, added to DiffRO"] == "equivalent"
    assert verdicts["noise0.3_shortcut0", "EAM, added to DiffRO"] == "worse"
    assert words("EAM, added to DiffRO", computed) == (
        "Better in the default setting. Other settings: equivalent in noise0.6_shortcut0.9; worse in noise0.3_shortcut0."
    )
    assert words("RRPO - DiffRO", computed) == (
        "Equivalent in the default setting. Other settings: equivalent in noise0.6_shortcut0.9, noise0.3_shortcut0."
    )
    table = sheet(computed)
    assert table is not None
    row = table.row(f"{OWN} *")
    assert row["eam_added_to_diffro"].mean == pytest.approx(0.12, abs=0.01)  # type: ignore[union-attr]
    assert row["eam_added_to_diffro_verdict"] == "better"
    assert "simultaneous over the setting's 4 contrasts (98.75 %)" in table.notes[1]
    assert [row[:2] for row in table.rows] == [
        (f"{OWN} *", ""),
        ("noise0.6_shortcut0.9", "rater noise 0.6"),
        ("noise0.3_shortcut0", "planted shortcut 0"),
    ]
    first, second = answer(selection_of(grid()), computed)
    assert first.startswith("RRPO - DiffRO: Equivalent in")
    assert "LS, added to DiffRO: Equivalent in" in second
    assert DEPENDENT in table.notes


def by_contrast(table: Sheet) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return (setting, contrast) -> column -> value."""
    return {row[:2]: dict(zip((column.name for column in table.columns), row, strict=True)) for row in table.rows}


def test_a_setting_is_compared_with_the_default_one():
    """EAM gains 12 points in the default setting, none with noisy raters, and loses 12 without the shortcut."""
    table = changes(selection_of(grid()))
    assert table is not None
    rows = by_contrast(table)
    others = ("noise0.6_shortcut0.9", "noise0.3_shortcut0")
    assert list(dict.fromkeys(setting for setting, _ in rows)) == list(others)
    contrasts = ("DiffRO", "LS, added to DiffRO", "EAM, added to DiffRO", "Adv, added to DiffRO", "RRPO - DiffRO")
    assert [name for _, name in rows] == 2 * list(contrasts)
    means = [rows[setting, "EAM, added to DiffRO"]["clean_success"].mean for setting in others]
    assert means == pytest.approx([-0.12, -0.24], abs=0.01)
    assert rows["noise0.3_shortcut0", "EAM, added to DiffRO"]["hacked_share"].mean == pytest.approx(0.24, abs=0.01)
    assert rows["noise0.3_shortcut0", "DiffRO"]["clean_success"].mean == pytest.approx(0, abs=0.01)
    assert changes(selection_of([r for r in grid() if OWN not in r.label])) is None, "no default setting"


def test_every_setting_has_its_contrasts_in_several_outcomes():
    """Without the shortcut, the oracle is 30 points above DiffRO; elsewhere it was not run."""
    oracle = [record("oracle", 0.3, 0.0, seed, 0.8) for seed in range(6)]
    table = outcomes(selection_of([*grid(), *oracle]))
    assert table is not None
    rows = by_contrast(table)
    assert len(rows) == 3 * 4 + 1
    gain = rows["noise0.3_shortcut0", "oracle - DiffRO"]
    assert (gain["n"], gain["clean_success"].mean) == (6, pytest.approx(0.3, abs=0.01))
    assert rows[OWN, "Adv, added to DiffRO"]["hacked_share"].mean == pytest.approx(0.12, abs=0.01)
    alone = outcomes(selection_of([r for r in grid() if OWN in r.label]))
    assert alone is not None
    assert list(by_contrast(alone)) == [key for key in rows if key[0] == OWN]


def test_the_answer_without_diverged_cells_is_told_too():
    """DiffRO counts as 0 in one of seven seeds, so that RRPO, which equals it elsewhere, is neither better nor equivalent."""
    records = [r for r in grid(seeds=7) if (r.label, r.seed) != (f"diffro@{OWN}", 0)]
    selection = selection_of(records, (7,), {(f"diffro@{OWN}", 0): "diverged"})
    first, *_, last = answer(selection, findings(selection))
    assert first.startswith("RRPO - DiffRO: Undecided")
    assert last.startswith(
        "Diverged cells (1) count as clean success 0; without them: RRPO - DiffRO: Equivalent in the default setting."
    )


def test_the_whole_factorial_gives_the_family():
    computed = findings(selection_of(grid(arms=WHOLE)))
    assert {finding.name for finding in computed} == set(family())
    assert verdicts_of(computed)[OWN, "EAM, main effect"] == "better"
    assert "replaces the main effect" not in " ".join(sheet(computed).notes)  # type: ignore[union-attr]
    lacking = [r for r in grid(arms=WHOLE) if r.label != "ls_adv@noise0.3_shortcut0"]
    conclusions = {finding.name for finding in findings(selection_of(lacking))}
    assert conclusions == {"LS, in RRPO", "Adv, in RRPO", "RRPO - DiffRO"}, "what all settings hold"


@pytest.mark.parametrize("plans", [(), (5,), (6, 8)])
def test_nothing_is_tested_before_the_planned_number_of_seeds(plans: tuple[int, ...]):
    computed = findings(selection_of(grid(), plans))
    assert set(verdicts_of(computed).values()) == {"interim"}
    assert words("EAM, added to DiffRO", computed).startswith(
        "Interim, not tested, n = 6: the estimate is above zero in"
    )
    assert sheet(computed).notes[-1] == (  # type: ignore[union-attr]
        "Interim, not tested: planned cells are missing, or fewer than two seeds are planned."
    )


def test_a_missing_cell_keeps_its_conclusions_interim_and_a_diverged_one_scores_nothing():
    setting, labels = "noise0.6_shortcut0.9", list(dict.fromkeys(r.label for r in grid()))
    missing = [r for r in grid() if (r.label, r.seed) != (f"rrpo@{setting}", 3)]
    verdicts = verdicts_of(findings(selection_of(missing, lost={(f"rrpo@{setting}", 3): "missing"})))
    assert verdicts[setting, "RRPO - DiffRO"] == "interim"
    assert verdicts[OWN, "EAM, added to DiffRO"] == "better", "the rest is tested"
    computed = findings(selection_of(missing, lost={(f"rrpo@{setting}", 3): "diverged"}))
    (broken,) = [f for f in computed if (f.setting.name, f.name) == (setting, "RRPO - DiffRO")]
    assert (broken.interval.n, broken.word) == (6, "undecided")
    without_rrpo = [r for r in grid() if r.label != f"rrpo@{setting}"]
    diverged = {(f"rrpo@{setting}", seed): "diverged" for seed in range(6)}
    assert (
        verdicts_of(findings(selection_of(without_rrpo, lost=diverged, labels=labels)))[setting, "RRPO - DiffRO"]
        == "worse"
    )


def test_a_whole_setting_that_is_lost_is_still_there():
    setting, labels = "noise0.6_shortcut0.9", list(dict.fromkeys(r.label for r in grid()))
    without_place = [r for r in grid() if not r.label.endswith(f"@{setting}")]
    lost = {(label, seed): "missing" for label in labels if label.endswith(setting) for seed in range(6)}
    computed = findings(selection_of(without_place, lost=lost, labels=labels))
    by_setting = sheet(computed)
    assert by_setting is not None
    assert [row[0] for row in by_setting.rows] == [f"{OWN} *", setting, "noise0.3_shortcut0"]
    assert [row[1] for row in by_setting.rows] == ["", "", "planted shortcut 0"], "of the lost one nothing is known"
    assert by_setting.row(setting)["rrpo_diffro"].n == 0  # type: ignore[union-attr]
    assert words("EAM, added to DiffRO", computed) == (
        f"Better in the default setting. Other settings: interim in {setting}; worse in noise0.3_shortcut0."
    ), "the others are tested"


def test_one_setting_alone_is_tested_and_answers():
    selection = selection_of([r for r in grid() if r.label.endswith("@noise0.3_shortcut0")])
    computed = findings(selection)
    table = sheet(computed)
    assert table is not None
    assert [row[0] for row in table.rows] == ["noise0.3_shortcut0"]
    first, second = answer(selection, computed)
    unknown = "in noise0.3_shortcut0 (no setting is known to be the default one)."
    assert first == f"RRPO - DiffRO: Equivalent {unknown}"
    assert f"EAM, added to DiffRO: Worse {unknown}" in second


def test_the_default_setting_alone_is_answered_in_its_own_words():
    selection = selection_of([r for r in grid() if OWN in r.label])
    first, *_ = answer(selection, findings(selection))
    assert first == "RRPO - DiffRO: Equivalent in the default setting."


def test_components_without_a_check_are_named_in_each_setting():
    """Of the default setting, all reward models are measured; of the others none."""

    def measured(label: str, seed: int) -> dict[str, float]:
        names = ("rm_ece", "rm_smoothness", "rm_pgd_accuracy_0.1")
        return dict.fromkeys(names, 0.5 + 0.01 * seed) if OWN in label else {}

    table = sheet(findings(selection_of(grid(scalars=measured))))
    assert table is not None
    lines = [note for note in table.notes if note.startswith("Manipulation not checked at")]
    assert [line.split(" (")[0].removeprefix("Manipulation not checked at ") for line in lines] == [
        "noise0.6_shortcut0.9",
        "noise0.3_shortcut0",
    ]


def test_each_setting_has_its_own_number_of_planned_seeds():
    """Noisy raters are planned on four of the six seeds, and complete there."""
    fewer = "noise0.6_shortcut0.9"
    records = [r for r in grid() if not (r.label.endswith(f"@{fewer}") and r.seed > 3)]
    selection = replace(selection_of(records, (4,)), setting_plans={OWN: 6, fewer: 4, "noise0.3_shortcut0": 5})
    verdicts = verdicts_of(findings(selection))
    assert verdicts[OWN, "EAM, added to DiffRO"] == "better"
    assert verdicts[fewer, "EAM, added to DiffRO"] == "equivalent"
    assert verdicts["noise0.3_shortcut0", "EAM, added to DiffRO"] == "interim", "six seeds were run, and five planned"


def test_two_seeds_check_no_manipulation():
    """With two seeds the interval is so wide that any component would fail."""
    eam = next(component for component in COMPONENTS if component.name == "eam")
    for seeds, expected in ((2, False), (6, True)):
        records = grid(seeds, scalars=lambda label, seed: {"rm_smoothness": 0.5})
        weights = {f"eam@{OWN}": 1.0, f"diffro@{OWN}": -1.0}
        assert manipulation.check(records, eam, weights).failed is expected


def test_a_component_that_did_not_move_its_target_in_a_setting_was_not_tested_there():
    def smoothness(label: str, seed: int) -> dict[str, float]:
        moved = label.startswith("eam@") and "noise0.6" not in label
        return {"rm_smoothness": 0.5 + 0.1 * moved + 0.001 * np.sin(7 * seed + len(label))}

    selection = selection_of(grid(scalars=smoothness))
    verdicts = verdicts_of(findings(selection))
    assert verdicts[OWN, "EAM, added to DiffRO"] == "better"
    assert verdicts["noise0.6_shortcut0.9", "EAM, added to DiffRO"] == "not tested (manipulation check failed)"
    table = reward_models.sheet(selection)
    assert table is not None
    checks = [note for note in table.notes if note.startswith("Manipulation checks at")]
    assert checks[0].startswith(f"Manipulation checks at {OWN}, effects on the reward model: EAM on rm_smoothness +0.1")
    assert ["FAILED" in note for note in checks] == [False, True, False]


def test_adversarial_training_whose_attack_was_weak_fails_its_check():
    for ratio, words_ in ((1.04, "worse (manipulation check failed)"), (1.05, "worse")):
        computed = findings(selection_of(grid(scalars=lambda label, seed, x=ratio: {"l_adv_over_l_emo": x})))
        assert verdicts_of(computed)[OWN, "Adv, added to DiffRO"] == words_


def test_undecided_there_is_nothing_that_could_survive():
    computed = findings(selection_of(grid(seeds=3, noise=0.08), (3,)))
    verdict_ = verdicts_of(computed)[OWN, "LS, added to DiffRO"]
    assert re.fullmatch(r"undecided \(\d+ seeds for power 0.8\)", verdict_)
    sentence = words("LS, added to DiffRO", computed)
    assert sentence.startswith(f"{verdict_.capitalize()} in the default setting. Other settings: undecided in noise0.6")


@pytest.mark.parametrize("case", ["plain", "much noise", "no noise", "val disagrees", "not moved"])
def test_a_setting_is_judged_by_the_rule_of_the_first_table(case: str):
    noise = {"much noise": 0.1, "no noise": 0.0}.get(case, 0.004)
    records = grid(
        arms=WHOLE,
        noise=noise,
        veto=lambda clean: 1 - clean if case == "val disagrees" else None,
        scalars=lambda label, seed: (
            {"rm_smoothness": 0.5 + 0.001 * np.sin(7 * seed + len(label))} if case == "not moved" else {}
        ),
    )
    computed = findings(selection_of(records))
    for setting in settings.settings(records):
        alone = tuple(replace_label(r, split_label(r.label)[0]) for r in setting.records)
        selection = Selection("x", alone, dict.fromkeys(WHOLE, 6), (), (6,))
        by_name = {row.name: row.verdict for row in effects.rows(selection) if row.primary}
        assert {f.name: f.verdict for f in computed if f.setting.name == setting.name} == by_name
    expected = {
        "plain": "better",
        "much noise": "undecided (",
        "no noise": "not tested (no spread over seeds)",
        "not moved": "better (manipulation check failed)",
    }.get(case, "no verdict (another judge sees the opposite)")
    assert verdicts_of(computed)[OWN, "EAM, in RRPO"].startswith(expected)


def replace_label(r: Record, label: str) -> Fake:
    return Fake(label, r.seed, r.points, r.samples, params=r.params, scalars=r.scalars)


def test_better_by_less_than_the_margin_is_better_and_said_to_be_less():
    rng = np.random.default_rng(1)
    records = [r for r in grid(arms=WHOLE) if "noise0.6" not in r.label]
    small = [
        record(arm, 0.6, 0.9, seed, 0.5 + 0.03 * with_part(arm, "eam") + 0.004 * rng.standard_normal())
        for arm in WHOLE
        for seed in range(6)
    ]
    computed = findings(selection_of(records + small))
    assert words("EAM, main effect", computed) == (
        "Better in the default setting. Other settings: worse in noise0.3_shortcut0; better (by less than 5 points) in "
        "noise0.6_shortcut0.9."
    )


def test_plain_arms_are_no_settings():
    bare = [Fake(arm, 1, pd.DataFrame()) for arm in SINGLES]
    selection = selection_of(bare)
    assert settings.settings(bare) == findings(selection) == answer(selection, []) == []
    assert sheet([]) is None
    assert uptake(bare) is None
    assert settings.plain(selection) == (selection, "")


def test_a_grid_with_plain_arms_is_shown_whole(runs: Path):
    """Guided decoding has SFT and the settings of each system: SFT stays, and no setting is taken for the default."""
    store_cells(runs, fakes.cells(["sft", "diffro@a", "diffro@b"], [1]))
    selection = select(runs, "tiny")
    assert settings.plain(selection) == (selection, "")


def test_of_settings_the_own_one_is_shown_with_what_it_lost(runs: Path):
    store_cells(runs, fakes.cells(["diffro@a", "diffro@b"], [1, 2]))
    lost = {("rrpo@a", 1): "diverged", ("rrpo@b", 1): "diverged"}
    shown, note = settings.plain(replace(select(runs, "tiny"), lost=lost))
    assert note == "Setting: a, of 2."
    assert (shown.planned, shown.lost) == ({"diffro": 2, "rrpo": 1}, {("rrpo", 1): "diverged"})


def test_uptake_is_a_difference_in_differences():
    """At a shortcut of .9, DiffRO's uptake is .3 and LS's half of it; RRPO has more artefacts regardless of the shortcut."""
    rng = np.random.default_rng(1)
    level = {"diffro": (0.0, 0.3), "ls": (0.02, 0.17), "rrpo": (0.2, 0.5)}
    draws = {
        (arm, s, seed): level[arm][s > 0] + 0.01 * rng.standard_normal()
        for arm in level
        for s in (0, 0.9)
        for seed in range(5)
    }
    records = [record(arm, 0.3, s, seed, 0.5, end) for (arm, s, seed), end in draws.items()]
    table = uptake(records)
    assert table is not None
    assert table.columns[0].name == "arm"
    diffro, ls, rrpo = (table.row(arm) for arm in level)
    by_hand = [
        draws["ls", 0.9, s] - draws["ls", 0, s] - draws["diffro", 0.9, s] + draws["diffro", 0, s] for s in range(5)
    ]
    assert ls["did_0.9"] == pytest.approx(t_interval(by_hand))
    assert ls["did_0.9"].mean == pytest.approx(-0.15, abs=0.02)  # type: ignore[union-attr]
    assert rrpo["planted_0.9"].mean == pytest.approx(0.3, abs=0.02)  # type: ignore[union-attr]
    assert diffro["did_0.9"].n == 0  # type: ignore[union-attr]


def test_uptake_counts_the_seeds_of_its_differences():
    records = [record(arm, 0.3, s, seed, 0.5, s + seed) for arm in SINGLES for s in (0.0, 0.9) for seed in range(4)]
    records = [r for r in records if (r.label, r.seed) != ("diffro@noise0.3_shortcut0.9", 3)]
    table = uptake([r for r in records if r.label != "eam@noise0.3_shortcut0"])
    assert table is not None
    assert [row[:2] for row in table.rows] == [("diffro", 3), ("ls", 3), ("adv", 3), ("rrpo", 3)]
    assert table.row("ls")["uptake_0.9"] == t_interval([0.9, 1.9, 2.9]), "of the same seeds"
    assert any(note == "Not shown, because they lack a strength: eam." for note in table.notes)
    assert uptake([r for r in records if not r.label.endswith("shortcut0")]) is None, "nothing to compare with"


def test_uptake_uses_no_setting_whose_changed_arm_has_no_record():
    """Another reward changes only RRPO, whose cells are missing: with DiffRO alone it seems to have the default's shortcut."""
    records = [record(arm, 0.3, s, seed, 0.5, s) for arm in ("diffro", "rrpo") for s in (0.0, 0.9) for seed in (0, 1)]
    others = [replace_label(r, "diffro@reward") for r in records if r.label == "diffro@noise0.3_shortcut0.9"]
    table = uptake([*records, *others], [*(r.label for r in records), "diffro@reward", "rrpo@reward"])
    assert table is not None
    assert [row[:2] for row in table.rows] == [("diffro", 2), ("rrpo", 2)], "RRPO lacks no strength"
    assert table.row("rrpo")["planted_0.9"] == t_interval([0.9, 0.9])


def test_a_setting_is_told_by_the_arms_that_it_changes():
    """The vanilla reward model has only one form of reward, so DiffRO's cell is that of the default setting."""
    records = [
        Fake(c.label, 1, pd.DataFrame(), params=c.params())
        for c in sensitivity(EMBEDDED, [1])
        if c.label.endswith(("@own", "@full_l_ser", "@hard", "@data150_8_60"))
    ]
    by_name = {setting.name: setting for setting in settings.settings(records)}
    assert {name for name, setting in by_name.items() if setting.own} == {"own"}
    assert by_name["full_l_ser"].changed == {"reward": "full_l_ser"}
    assert by_name["hard"].changed.keys() >= {"learning rate", "updates"}
    assert by_name["data150_8_60"].changed == {"RM utterances": 150, "RM speakers": 8, "annotated utterances": 60}
    assert (by_name["own"].levels["reward"], by_name["own"].levels["RM speakers"]) == ("hard_ce", 3)


def cells_of(arms: dict[str, ArmConfig]) -> list[Fake]:
    """Return one cell per label, of seed 1 of the profile `EMBEDDED`."""
    return [Fake(c.label, 1, pd.DataFrame(), params=c.params()) for c in product(arms, EMBEDDED, [1])]


def test_settings_may_differ_in_any_field_of_the_arm():
    weights = (0.25, 0.5, 1.0)
    labeled = {
        f"{arm}@content{w:g}": replace(known, content_weight=w)
        for w in weights
        for arm, known in arms().items()
        if arm in ("diffro", "rrpo")
    }
    varied = settings.settings(cells_of(labeled))
    assert [setting.changed for setting in varied] == [{"content weight": w} for w in weights]
    assert not any(setting.own for setting in varied)


def test_the_default_of_the_arm_is_the_default_setting():
    """DiffRO, which has no label smoothing in any setting, says nothing about it."""
    rrpo = arms()["rrpo"]
    labeled = {}
    for epsilon in (0.05, 0.1, 0.2):
        labeled[f"diffro@eps{epsilon:g}"] = arms()["diffro"]
        labeled[f"rrpo@eps{epsilon:g}"] = replace(rrpo, regularizers=replace(rrpo.regularizers, epsilon=epsilon))
    smaller, default, larger = settings.settings(cells_of(labeled))
    assert (default.name, default.own, default.changed) == ("eps0.1", True, {})
    assert (smaller.changed, larger.changed) == ({"regularizers.epsilon": 0.05}, {"regularizers.epsilon": 0.2})
    assert [setting.own for setting in (smaller, larger)] == [False, False]


def test_a_level_that_is_no_number_is_shown_as_text():
    labeled = {f"rrpo@{name}": arms()["rrpo"] for name in ("one", "two")}
    one, two = cells_of(labeled)
    two.config["arm.regularizers.added"] = '[["focal", 2]]'
    plain, added = settings.settings([one, two])
    assert (plain.own, added.changed) == (True, {"regularizers.added": '[["focal", 2]]'})


def test_without_a_default_setting_one_with_records_is_shown():
    labeled = {f"diffro@content{w:g}": replace(arms()["diffro"], content_weight=w) for w in (0.25, 0.5)}
    *_, cell = product(labeled, EMBEDDED, [1])
    second = Record(label=cell.label, seed=1, world_hash="w", profile="embedded", params=cell.params())
    shown, note = settings.plain(Selection("x", (second,), dict.fromkeys(labeled, 1), ()))
    assert ([r.label for r in shown.records], note) == (["diffro"], "Setting: content0.5, of 2.")


@pytest.mark.parametrize("lost", ["missing", "diverged"])
def test_a_setting_whose_changed_arm_has_no_record_is_not_taken_for_the_default(lost: str):
    """Another reward changes only RRPO, so DiffRO's record alone looks like the default setting."""
    cells = {c.label: c for c in sensitivity(EMBEDDED, [1]) if c.label.endswith(("@own", "@smoothed_ce"))}
    records = [Fake(label, 1, pd.DataFrame(), params=c.params()) for label, c in cells.items()]
    records = [r for r in records if r.label != "rrpo@smoothed_ce"]
    own, smoothed = settings.settings(records, cells)
    assert (own.name, own.own, own.unknown) == ("own", True, False)
    assert (smoothed.name, smoothed.own, smoothed.unknown, smoothed.changed) == ("smoothed_ce", False, True, {})
    without_default = [r for r in records if r.label == "diffro@smoothed_ce"]
    planned = dict.fromkeys(("diffro@smoothed_ce", "rrpo@smoothed_ce"), 1)
    selection = Selection("x", tuple(without_default), planned, (), lost={("rrpo@smoothed_ce", 1): lost})
    assert settings.default_suffix(selection) == ""
    assert settings.default_suffix(selection_of(records)) == "@own"


def test_a_grid_of_settings_is_reported(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real grid's arms, stored as cells and loaded from MLflow."""
    suffixes = ("@own", "@shortcut0", "@full_l_ser")
    arms = {c.label: c.arm for c in sensitivity(EMBEDDED, [1]) if c.label.endswith(suffixes)}

    def cells(profile: object, seeds: list[int]) -> list[Cell]:
        changed_cells = [replace(cell, arm=arms[cell.label], profile=EMBEDDED) for cell in fakes.cells(list(arms), [1])]
        return [replace(cell, seed=seed) for seed in seeds for cell in changed_cells]

    monkeypatch.setitem(GRIDS._items, "tiny", Grid(cells=cells, profile="smoke"))
    store_cells(runs, cells(None, [1]))
    changed_cells = make(select(runs, "tiny"))
    assert changed_cells.answer[0].startswith("RRPO - DiffRO: Interim, not tested, n = 1: the estimate")
    assert changed_cells.answer[-1].endswith("No human has listened.")
    sheets = {sheet.name: sheet for sheet in changed_cells.sheets}
    assert {"settings", "uptake"} <= sheets.keys()
    assert sheets["settings"].row("own *")["rrpo_diffro_verdict"] == "interim", "so the default setting was known"
    assert [row[:2] for row in sheets["settings"].rows] == [
        ("own *", ""),
        ("shortcut0", "planted shortcut 0"),
        ("full_l_ser", "reward full_l_ser"),
    ]
    assert [row[:2] for row in sheets["uptake"].rows] == [("diffro", 1), ("rrpo", 1)]
    figures = {figure.name: figure for figure in changed_cells.figures}
    assert "Setting: own, of 3." in figures["goodhart"].caption
    assert [path.name for path in figures["reach"].draw(tmp_path)] == ["reach.pdf", "reach.png"]
    shown, _ = settings.plain(select(runs, "tiny"))
    assert shown.arms == ["diffro", "rrpo", "oracle"]
    assert "components" not in sheets, "arms are compared within their setting"
    assert changed_cells.sheets[0].name == "settings"


def of_beta(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """The default setting and those of the KL weight of the real grid, as fake cells."""
    suffixes = ("@own", "@beta0.001", "@beta0.01")
    real = [cell for cell in sensitivity(profile, [1]) if cell.label.endswith(suffixes)]
    fake = fakes.cells([cell.label for cell in real], [1])
    changed_cells = [replace(c, arm=cell.arm, profile=profile) for c, cell in zip(fake, real, strict=True)]
    return [replace(cell, seed=seed) for seed in seeds for cell in changed_cells]


def test_the_profile_of_the_cells_decides_which_settings_were_planned(runs: Path, monkeypatch: pytest.MonkeyPatch):
    """With beta .01 in the profile, as `--set optimize.beta=0.01` gives it, the grid has no setting beta0.01."""
    monkeypatch.setitem(GRIDS._items, "tiny", Grid(cells=of_beta, profile="embedded"))
    profile = replace(EMBEDDED, optimize=replace(EMBEDDED.optimize, beta=0.01))
    planned = of_beta(profile, [1, 2])
    assert {split_label(cell.label)[1] for cell in planned} == {"own", "beta0.001"}
    recorder.create(check(runs), "tiny")
    Tracker(check(runs), "tiny", {}, {}).start_invocation(planned, {})
    store_cells(runs, planned[:2])
    selection = select(runs, "tiny")
    assert (selection.plans, selection.planned_n) == ((2,), 2)
    assert selection.grid_labels == {cell.label for cell in planned}


@pytest.mark.parametrize(
    ("begun", "plans"),
    [(["own", "beta0.001"], (2,)), (["own"], (2,)), (["own", "half"], ()), (["own", "beta0.001", "beta0.01"], (2,))],
)
def test_whole_settings_are_tested_before_the_others_are_planned(
    runs: Path, monkeypatch: pytest.MonkeyPatch, begun: list[str], plans: tuple[int, ...]
):
    """Of beta .01, "half" plans DiffRO alone."""
    monkeypatch.setitem(GRIDS._items, "tiny", Grid(cells=of_beta, profile="embedded"))
    half = ["diffro@beta0.01"] if "half" in begun else []
    planned = [c for c in of_beta(EMBEDDED, [1, 2]) if split_label(c.label)[1] in begun or c.label in half]
    recorder.create(check(runs), "tiny")
    Tracker(check(runs), "tiny", {}, {}).start_invocation(planned, {})
    store_cells(runs, planned)
    selection = select(runs, "tiny")
    assert selection.plans == plans
    whole = {setting: 2 for setting in begun if setting != "half"}
    assert selection.setting_plans == whole | ({"beta0.01": 0} if "half" in begun else {})

"""Contrasts in a report: the declared family is tested at the planned number of seeds, and only then."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import SAMPLES, checkpoint, grid, record, with_part, with_unplanned_seeds

from ablations.outcomes import find
from ablations.rendering.sheet import as_csv, markdown
from ablations.stats import family as declared
from ablations.stats.family import family
from ablations.stats.statistics import t_interval
from ablations.tracking.records import Record
from reports.arm_tables import results
from reports.effects import ablation, first_sheet, rows, sheet
from reports.loading import Selection
from reports.manipulation import checks, component_notes
from reports.verdicts import Row, verdict

GAINS = {"ls": 0.10, "eam": 0.0, "adv": -0.10}
"""Gain of each component, additive; noise is half a point."""


def verdicts(rows: list[Row]) -> dict[str, str]:
    return {row.name: row.verdict for row in rows if row.primary}


def changed(selection: Selection, **fields: object) -> Selection:
    """Return a selection whose records have changed fields, each given as a function of the record."""
    records = []
    for old in selection.records:
        new = record(old.label, old.seed, 0.0)
        new.__dict__.update(old.__dict__)
        for name, value in fields.items():
            new.__dict__[name] = value(old)  # type: ignore[operator]
        records.append(new)
    return replace(selection, records=tuple(records))


def test_known_effects_get_their_verdicts():
    selection = grid(GAINS)
    computed = rows(selection)
    assert verdicts(computed) == {
        "LS, main effect": "better",
        "EAM, main effect": "equivalent",
        "Adv, main effect": "worse",
        "LS, in RRPO": "better",
        "EAM, in RRPO": "equivalent",
        "Adv, in RRPO": "worse",
        "RRPO - DiffRO": "equivalent",
    }
    by_name = {row.name: row for row in computed}
    assert by_name["LS, main effect"].interval == t_interval(by_name["LS, main effect"].values, 1 - 0.05 / 7)
    assert by_name["RRPO - SFT"].interval == t_interval(by_name["RRPO - SFT"].values, 1 - 0.05 / 7)
    assert by_name["LS x Adv"].interval == t_interval(by_name["LS x Adv"].values)
    others = {row.name: row.verdict for row in computed if not row.primary}
    assert others.pop("RRPO - SFT") == "worse", "it is no part of the family, but decides between stops and reduces"
    assert set(others.values()) == {"secondary, not tested"}
    table = sheet(selection, computed)
    assert table is not None
    assert (table.row("RRPO - SFT")["verdict"], table.row("LS x Adv")["verdict"]) == ("worse", "secondary, not tested")


def test_the_first_table_has_the_family_and_rrpo_above_sft_and_what_stands_beside():
    selection = grid(GAINS)
    table = first_sheet(selection, rows(selection))
    assert table is not None
    assert [row[0] for row in table.rows] == [*family(), "RRPO - SFT"]
    names = ["contrast", "n", "clean_success", "verdict", "hacked_share", "gold", "phone_error_rate", "artefacts"]
    assert [column.name for column in table.columns] == names
    row = table.row("LS, in RRPO")
    assert row["hacked_share"].mean == pytest.approx(-row["clean_success"].mean)  # type: ignore[union-attr]
    values = [r.points["test_accuracy"].iloc[-1] for arm in ("rrpo", "eam_adv") for r in selection.of(arm)]
    assert row["gold"] == pytest.approx(t_interval(np.subtract(*np.split(np.array(values), 2))))
    assert "simultaneous over 7 contrasts (99.29 %)" in table.notes[0]


@pytest.mark.parametrize("plans", [(), (5,), (5, 12), (12,)])
def test_no_verdict_before_the_planned_number_of_seeds(plans: tuple[int, ...]):
    selection = grid(GAINS, plans=plans)
    computed = rows(selection)
    assert set(verdicts(computed).values()) == {"interim"}
    table = sheet(selection, computed)
    assert table is not None
    expected = f"the {plans[-1]} planned seeds" if plans else "all planned seeds (none is planned)"
    assert any(note.startswith("Interim") and expected in note for note in table.notes)


def test_only_seeds_of_the_whole_plan_are_tested():
    """Two of its arms have twelve seeds, the others eight; the test uses eight."""
    unplanned = tuple(record(arm, seed, 0.0) for arm in ("rrpo", "diffro") for seed in range(8, 12))
    selection = grid(GAINS)
    computed = rows(replace(selection, records=selection.records + unplanned))
    assert verdicts(computed) == verdicts(rows(selection))
    assert {len(row.values) for row in computed} == {8}


def test_components_one_by_one_are_of_the_tested_seeds():
    table, more = (ablation(selection) for selection in (grid(GAINS), with_unplanned_seeds(grid(GAINS))))
    assert table is not None
    assert more is not None
    assert {"hacked_share", "uptake"} <= {column.name for column in table.columns}
    for name in [column.name for column in table.columns]:
        assert [more.row(str(row[0]))[name] for row in more.rows] == [
            table.row(str(row[0]))[name] for row in table.rows
        ]
    assert {row[2] for row in more.rows} == {8.0}


def test_a_judge_takes_a_difference_away_only_by_an_interval_of_its_own():
    def by_val(clean_of: dict[str, float]):
        return lambda label, seed, clean: record(label, seed, clean, veto=clean_of.get(label, 0.5) + 0.01 * (seed % 3))

    opposed = {"rrpo": 0.4, "ls": 0.4, "ls_eam": 0.4, "ls_adv": 0.4}
    by_name = verdicts(rows(grid({"ls": 0.1}, make=by_val(opposed))))
    assert by_name["LS, main effect"] == by_name["RRPO - DiffRO"] == "no verdict (another judge sees the opposite)"

    def noisy(label: str, seed: int, clean: float) -> Record:
        return record(label, seed, clean, veto=0.5 - 0.02 * with_part(label, "ls") * (5 if seed % 4 == 0 else -1))

    by_name = verdicts(rows(grid({"ls": 0.1}, make=noisy)))
    assert by_name["LS, main effect"] == "better", (
        "the other's mean is below 0, its interval is not, and that is no veto"
    )
    assert by_name["EAM, main effect"] == "equivalent"


def test_a_judge_of_some_samples_is_heard_on_these_and_one_of_none_is_not():
    """The third judge evaluates every tenth sample; its accuracy, which is no clean success, says the opposite."""
    selection = grid({"ls": 0.1})
    opposed = changed(selection, points=lambda r: r.points.assign(third_accuracy=[0.5, 0.5 - with_part(r.label, "ls")]))
    assert verdicts(rows(opposed))["LS, main effect"] == "better"

    def heard(old: Record, wrong: str):
        rows = old.samples.copy()
        rows["third"] = rows["test"].where(rows.index % 10 == 0)
        if with_part(old.label, "ls"):
            rows.loc[rows["third"].notna() & (rows.index % 4 == 2 * (old.seed % 2)), "third"] = wrong
        return rows

    agreeing = changed(selection, samples=lambda r: heard(r, "sad"), shares=lambda r: {})
    assert verdicts(rows(agreeing))["LS, main effect"] == "better"
    opposing = changed(selection, samples=lambda r: heard(r, "angry"), shares=lambda r: {})
    assert verdicts(rows(opposing))["LS, main effect"] == "no verdict (another judge sees the opposite)"


def test_noise_is_undecided_with_the_seeds_it_takes():
    by_name = verdicts(rows(grid(GAINS, seeds=4, noise=0.05)))
    words = re.fullmatch(r"undecided \((\d+) seeds for power 0.8\)", by_name["EAM, in RRPO"])
    assert words is not None
    assert int(words[1]) > 4
    by_name = verdicts(rows(grid({}, seeds=4, noise=0.12, base=0.5)))
    assert by_name["EAM, in RRPO"].startswith("undecided (")


@pytest.mark.parametrize(
    ("deviation", "words"),
    [(0.047, "undecided (power 0.8 or more)"), (0.1, "undecided (51 seeds for power 0.8)")],
)
def test_undecided_at_the_needed_number_of_seeds_asks_for_no_fewer(deviation: float, words: str):
    """Sixteen differences of .025 +- .026, whose standard deviation takes 13 seeds, and of .025 +- .055."""
    x = 0.025 + deviation * np.array([1.0, -1.0] * 8)
    assert verdict(x, 0.95) == words


def test_a_small_difference_that_is_found_is_said_to_be_small():
    assert verdicts(rows(grid({"ls": 0.03})))["LS, main effect"] == "better (by less than 5 points)"


def test_without_spread_there_is_no_test_and_no_nan_is_shown():
    selection = grid(GAINS, noise=0.0)
    computed = rows(selection)
    assert set(verdicts(computed).values()) == {"not tested (no spread over seeds)"}
    for table in (sheet(selection, computed), first_sheet(selection, computed)):
        assert table is not None
        assert "nan" not in markdown(table) + as_csv(table)


def test_a_diverged_cell_scores_nothing_and_a_missing_one_keeps_its_contrasts_interim():
    selection = grid(GAINS)
    short = tuple(r for r in selection.records if (r.label, r.seed) != ("rrpo", 3))
    missing = rows(replace(selection, records=short, lost={("rrpo", 3): "missing"}))
    assert set(verdicts(missing).values()) == {"interim"}, "RRPO is in all of them"
    missing = rows(replace(selection, records=selection.records[1:], lost={("sft", 0): "missing"}))
    assert "interim" not in set(verdicts(missing).values()), "SFT is in none"
    lost = replace(selection, records=short, lost={("rrpo", 3): "diverged"})
    by_name = {row.name: row for row in rows(lost)}
    complete = {row.name: row for row in rows(selection)}
    before, after = complete["RRPO - DiffRO"].values, by_name["RRPO - DiffRO"].values
    diffro = next(r for r in selection.of("diffro") if r.seed == 3).points["test_accuracy"].iloc[-1]
    assert after == pytest.approx([*before[:3], -diffro, *before[4:]])
    assert by_name["RRPO - DiffRO"].word == "undecided"
    without = {row.name: row for row in rows(lost, float("nan"))}
    assert without["RRPO - DiffRO"].values == pytest.approx([*before[:3], *before[4:]])
    assert without["RRPO - DiffRO"].verdict == "equivalent"


def test_a_grids_arms_decide_its_family_and_a_part_of_a_grid_has_the_whole_ones():
    selection = grid(GAINS)
    loo = ["sft", "diffro", "eam_adv", "ls_adv", "ls_eam", "rrpo"]
    four = replace(selection, records=tuple(r for arm in loo for r in selection.of(arm)), planned=dict.fromkeys(loo, 8))
    computed = rows(four)
    assert list(verdicts(computed)) == ["LS, in RRPO", "EAM, in RRPO", "Adv, in RRPO", "RRPO - DiffRO"]
    assert verdicts(computed)["LS, in RRPO"] == "better"
    by_name = {row.name: row for row in computed}
    assert by_name["LS, in RRPO"].interval == t_interval(by_name["LS, in RRPO"].values, 1 - 0.05 / 4)
    part = replace(four, grid_labels=frozenset(selection.planned), plans=())
    assert set(verdicts(rows(part)).values()) == {"interim"}
    assert {row.name: row.interval for row in rows(part)}["RRPO - DiffRO"] == t_interval(
        by_name["RRPO - DiffRO"].values, 1 - 0.05 / 7
    )
    bare = tuple(r for r in selection.records if r.label == "sft")
    assert rows(Selection("x", bare, {"sft": 8}, (), (8,))) == []


@pytest.mark.parametrize(
    ("shift", "gain", "words"),
    [
        (-0.05, 0.0, "equivalent"),
        (0.0, 0.0, "not tested (manipulation check failed)"),
        (-0.05, 0.1, "better"),
        (0.0, 0.1, "better (manipulation check failed)"),
    ],
)
def test_the_absence_of_an_effect_counts_only_if_the_component_moved_its_own_target(
    shift: float, gain: float, words: str
):
    rng = np.random.default_rng(1)

    def ece(old: Record) -> dict[str, float]:
        return {"rm_ece": 0.2 + shift * with_part(old.label, "ls") + 0.002 * rng.standard_normal()}

    selection = changed(grid(GAINS | {"ls": gain}), scalars=ece)
    computed = rows(selection)
    assert verdicts(computed)["LS, main effect"] == verdicts(computed)["LS, in RRPO"] == words
    assert verdicts(computed)["Adv, main effect"] == "worse", "what was not measured counts as tested"
    (note,) = component_notes(selection)
    assert note.startswith("Manipulation checks, effects on the reward model: LS on rm_ece ")
    assert ("FAILED" in note) == (shift == 0)


def test_a_component_is_checked_by_its_first_contrast_that_three_seeds_have():
    """LS raises the calibration error, the wrong way. Arm ls was measured on two seeds, so the main effect has two."""

    def ece(old: Record) -> dict[str, float]:
        known = old.label != "ls" or old.seed < 2
        return {"rm_ece": 0.2 + (0.05 + 0.01 * old.seed) * with_part(old.label, "ls")} if known else {}

    selection = changed(grid(GAINS, seeds=4), scalars=ece)
    by_name = checks(selection.records, family())
    assert by_name["LS, main effect"] == by_name["LS, in RRPO"]
    assert by_name["LS, in RRPO"].moved == pytest.approx(t_interval([0.05, 0.06, 0.07, 0.08]))
    assert by_name["LS, main effect"].failed
    assert verdicts(rows(selection))["LS, main effect"] == "better (manipulation check failed)"
    short = [r for r in selection.records if r.label != "rrpo" or r.seed < 2]
    only_two = checks(short, family())["LS, main effect"]
    assert only_two.moved == pytest.approx(t_interval([0.05, 0.06])), "no contrast has three seeds"
    assert not only_two.failed


def test_a_component_that_too_few_seeds_check_is_named():
    selection = grid({"ls": 0.1})
    table = first_sheet(selection, rows(selection))
    assert table is not None
    (line,) = (note for note in table.notes if note.startswith("Manipulation not checked"))
    assert line.startswith(
        "Manipulation not checked (measured on fewer than 3 seeds): LS (no `rm_ece` was recorded), EAM (no `rm_smoothness` was "
        "recorded), Adv (no `rm_pgd_accuracy_0.1` was recorded). The verdicts assume"
    )
    for record_ in selection.records:
        record_.__dict__["scalars"] = {"rm_ece": 0.2 - 0.01 * with_part(record_.label, "ls")}
    table = first_sheet(selection, rows(selection))
    assert table is not None
    assert any(
        note.startswith("Manipulation not checked (measured on fewer than 3 seeds): EAM (no ") for note in table.notes
    )


def test_without_a_contrast_of_the_family_nothing_is_tested():
    selection = grid({"ls": 0.1})
    records = tuple(r for r in selection.records if r.label in ("sft", "rrpo"))
    pair = replace(selection, records=records, planned=dict.fromkeys(("sft", "rrpo"), 8))
    (row,) = rows(pair)
    assert (row.name, row.verdict) == ("RRPO - SFT", "secondary, not tested")
    table = first_sheet(pair, [row])
    assert table is not None
    assert table.notes[0].endswith("These arms allow no test.")


@pytest.mark.parametrize(("ratio", "words"), [(1.05, "equivalent"), (1.04, "not tested (manipulation check failed)")])
def test_adv_is_not_tested_where_its_attack_was_weak(ratio: float, words: str):
    selection = changed(
        grid({"ls": 0.1}), scalars=lambda r: {"l_adv_over_l_emo": ratio if with_part(r.label, "adv") else 1.2}
    )
    computed = rows(selection)
    assert verdicts(computed)["Adv, main effect"] == words
    assert verdicts(computed)["LS, main effect"] == "better"
    failed = "L_adv/L_emo under 1.05 in most reward models FAILED"
    assert any(failed in note for note in component_notes(selection)) == (ratio < 1.05)


def test_a_failed_check_does_not_hide_that_another_judge_sees_the_opposite():
    opposed = lambda label, seed, clean: record(label, seed, clean, veto=1.1 - clean)  # noqa: E731
    selection = changed(grid({"ls": 0.1}, make=opposed), scalars=lambda r: {"rm_ece": 0.2 + 0.01 * np.sin(7 * r.seed)})
    expected = "no verdict (another judge sees the opposite) (manipulation check failed)"
    assert verdicts(rows(selection))["LS, main effect"] == expected


def starting_at(old: Record, clean: float):
    """Return samples whose first checkpoint, the SFT policy under the cell's own reward model, has another clean success."""
    first = checkpoint(0, round(SAMPLES * clean), ("test", "val"), 0)
    return pd.concat([first, old.samples[old.samples["step"] > 0]], ignore_index=True)


def test_hacked_share_against_sft_is_that_of_one_reward_model():
    """RRPO's reward model is pleased by hacked samples of SFT in 50 % of its hits, the pre-trained one of the arm sft in 40 %."""
    selection = changed(
        grid({"ls": 0.1}),
        samples=lambda r: starting_at(r, 0.5) if r.label == "rrpo" else r.samples,
        shares=lambda r: {},
    )
    table = first_sheet(selection, rows(selection))
    assert table is not None
    end = np.mean([find("hacked_share").read(r) for r in selection.of("rrpo")])
    assert table.row("RRPO - SFT")["hacked_share"].mean == pytest.approx(end - 0.5)  # type: ignore[union-attr]
    assert results(selection).row("rrpo")["hacked_at_start"].mean == pytest.approx(0.5)  # type: ignore[union-attr]


def test_the_difference_from_sft_is_told_without_the_rule_on_lengths_too():
    """Half of RRPO's clean samples have an odd length; SFT has none by definition. A diverged cell counts as 0 in both."""

    def odd(old: Record):
        length = (old.samples.index % 2 == 0) & (old.samples["step"] > 0) & (old.label == "rrpo")
        return old.samples.assign(artefact_length=length)

    selection = changed(grid({"eam": 0.2}), samples=odd, shares=lambda r: {})
    row = {row.name: row for row in rows(selection)}["RRPO - SFT"]
    assert row.interval.mean == pytest.approx(0.35 - 0.6, abs=0.01)
    table = first_sheet(selection, rows(selection))
    assert table is not None
    without = next(
        re.search(r"without this rule, the difference is (\S+) ", n) for n in table.notes if "RRPO - SFT: " in n
    )
    assert without is not None
    assert float(without[1]) == pytest.approx(10, abs=1)
    short = tuple(r for r in selection.records if (r.label, r.seed) != ("rrpo", 3))
    table = first_sheet(lost := replace(selection, records=short, lost={("rrpo", 3): "diverged"}), rows(lost))
    assert table is not None
    without = next(
        re.search(r"without this rule, the difference is (\S+) ", n) for n in table.notes if "RRPO - SFT: " in n
    )
    assert without is not None
    assert float(without[1]) == pytest.approx(10 - 70 / 8, abs=1)


def test_another_primary_outcome_is_one_change_and_fewer_errors_are_better(monkeypatch: pytest.MonkeyPatch):
    """LS increases phone errors by ten points, Adv decreases them by ten; no judge has a veto on phone errors."""
    monkeypatch.setattr(declared, "PRIMARY_OUTCOME", "phone_error_rate")
    selection = changed(
        grid(GAINS), points=lambda r: r.points.assign(phone_error_rate=r.points["test_accuracy"], val_accuracy=0.5)
    )
    computed = rows(selection)
    assert verdicts(computed)["LS, main effect"] == "worse"
    assert verdicts(computed)["Adv, main effect"] == "better"
    table = sheet(selection, computed)
    assert table is not None
    assert table.notes[0].startswith("Contrasts of phone error rate, in points")

"""Contrasts in a report: the declared family is tested at a declared look, and only there."""

from __future__ import annotations

import csv
import io
import math
import re

import numpy as np
import pandas as pd
import pytest

from ablations import family as declared
from ablations.components import arm_of, subsets
from ablations.family import family
from ablations.records import Record
from ablations.sheet import as_csv, markdown
from reports.effects import rows, sheet

GAINS = {"ls": 0.10, "eam": 0.0, "adv": -0.10}
"""Gain of each component, additive; noise is a tenth of a point except in EAM's arms."""


class Fake(Record):
    """A record whose points are given."""

    def __init__(self, label: str, seed: int, table: pd.DataFrame) -> None:
        super().__init__(label=label, seed=seed, cell_hash="", arm_hash="", world_hash="", profile="", scalars={})
        self.__dict__["points"] = table


def records(seeds: int, *, noise: float = 0.002, val_sign: float = 1.0, without: str = "") -> list[Record]:
    rng, made = np.random.default_rng(0), []
    for seed in range(seeds):
        for on in subsets():
            gain = sum(GAINS[part] for part in on) + noise * rng.standard_normal()
            gold, val = 0.5 + 2 * np.array([0, gain]), 0.5 + 2 * val_sign * np.array([0, gain])
            if arm_of(on) != without:
                table = pd.DataFrame({"sqrt_kl": [0.0, 1.0], "test_accuracy": gold, "val_accuracy": val})
                made.append(Fake(arm_of(on), seed, table))
    return made


def with_part(arm: str, part: str) -> bool:
    return arm == "rrpo" or part in arm.split("_")


def verdicts(found: list) -> dict[str, str]:
    return {row.name: row.verdict for row in found if row.primary}


def test_known_effects_get_their_verdicts() -> None:
    found, notes = rows(records(8), [8])
    assert verdicts(found) == {
        "LS, main effect": "better",
        "EAM, main effect": "equivalent",
        "Adv, main effect": "worse",
        "RRPO - DiffRO": "equivalent",
    }
    means = {row.name: row.test.mean.mean for row in found}
    assert means["LS, main effect"] == pytest.approx(0.1, abs=0.003)
    assert all(math.isnan(row.holm_p) for row in found if not row.primary)
    assert any("Holm over 4, alpha = 0.0500" in note for note in notes)


@pytest.mark.parametrize("looks", [[], [5], [8, 12]])
def test_no_p_value_before_a_declared_look(looks: list[int]) -> None:
    found, notes = rows(records(7), looks)
    assert set(verdicts(found).values()) == {"interim"}
    assert any("Interim, n = 7" in note for note in notes)
    assert all(math.isnan(row.holm_p) for row in found)
    made = sheet(found, [])
    assert made is not None
    for row in csv.DictReader(io.StringIO(as_csv(made))):
        assert [row[name] for name in ("holm_p", "tost_p")] == [""] * 2
    assert markdown(made).count("| – | – |") == len(found)


def test_more_seeds_are_a_new_look_with_less_alpha_first() -> None:
    _, first = rows(records(8), [8, 16])
    _, last = rows(records(16), [8, 16])
    assert any("alpha = 0.0056; looks at n = 8, 16" in note for note in first)
    assert any("alpha = 0.0444" in note and "false claim of up to 0.0944 over all" in note for note in last)
    assert not any("false claim" in note for note in first)
    _, declared = rows(records(16), [8, 16], ahead=2)
    assert any("alpha = 0.0444; looks at n = 8, 16" in note for note in declared)
    assert not any("false claim" in note for note in declared)
    _, third = rows(records(20), [8, 16, 20], ahead=2)
    assert any("The seeds beyond 16 were planned later" in note for note in third)


def test_judges_that_disagree_give_no_verdict_and_noise_is_undecided() -> None:
    found, _ = rows(records(8, val_sign=-1.0), [8])
    assert verdicts(found)["LS, main effect"] == "no verdict (judges disagree on the sign)"
    found, _ = rows(records(4, noise=0.05), [4])
    words = re.fullmatch(r"undecided \((\d+) seeds would decide\)", verdicts(found)["EAM, main effect"])
    assert words is not None
    assert int(words[1]) > 4
    found, _ = rows(records(4, noise=0.5), [4])
    assert verdicts(found)["EAM, main effect"] == "undecided (not even 1,000 seeds would decide)"


def test_a_small_difference_that_is_found_is_said_to_be_small() -> None:
    made = records(8)
    for record in made:
        record.points["test_accuracy"] -= 2 * 0.085 * np.array([0.0, with_part(record.label, "ls")])
    found, _ = rows(made, [8])
    assert verdicts(found)["LS, main effect"] == "better (by less than 3 points)"


def test_without_spread_there_is_no_test_and_no_nan_is_shown() -> None:
    found, notes = rows(records(8, noise=0.0), [8])
    assert set(verdicts(found).values()) == {"not tested (no spread over seeds)"}
    made = sheet(found, notes)
    assert made is not None
    assert "nan" not in markdown(made) + as_csv(made)


def test_a_diverged_cell_takes_its_seed_out_and_a_missing_one_keeps_the_table_interim() -> None:
    made = [r for r in records(8) if (r.label, r.seed) != ("ls", 3)]
    found, notes = rows(made, [8], {("ls", 3)})
    n = {row.name: len(row.values) for row in found if row.primary}
    assert n == {"LS, main effect": 7, "EAM, main effect": 7, "Adv, main effect": 7, "RRPO - DiffRO": 8}
    assert verdicts(found)["Adv, main effect"] == "worse"
    assert any("a cell diverged: LS, main effect 1, EAM, main effect 1, Adv, main effect 1." in note for note in notes)
    found, _ = rows(made, [8])
    assert set(verdicts(found).values()) == {"interim"}
    found, _ = rows(made, [7, 8])
    assert set(verdicts(found).values()) == {"interim"}, "seven of eight seeds are not a look at seven"


def test_an_incomplete_factorial_is_never_tested() -> None:
    """Without one arm no main effect can be formed, so the declared family is not there; without DiffRO nothing is."""
    found, _ = rows(records(8, without="ls"), [8])
    assert {row.name for row in found if row.primary} == {"RRPO - DiffRO"}
    assert verdicts(found) == {"RRPO - DiffRO": "interim"}
    assert rows(records(8, without="diffro"), [8]) == ([], [])
    assert set(family()) >= set(verdicts(found))


@pytest.mark.parametrize(("shift", "words"), [(-0.05, "better"), (0.0, "not tested (manipulation check failed)")])
def test_a_component_that_did_not_move_its_own_target_is_not_tested(shift: float, words: str):
    made = records(8)
    rng = np.random.default_rng(1)
    for record in made:
        with_ls = with_part(record.label, "ls")
        object.__setattr__(record, "scalars", {"rm_ece": 0.2 + shift * with_ls + 0.002 * rng.standard_normal()})
    found, notes = rows(made, [8])
    assert verdicts(found)["LS, main effect"] == words
    assert verdicts(found)["Adv, main effect"] == "worse", "what was not measured counts as tested"
    assert any(note.startswith("Manipulation checks") and ("FAILED" in note) == (shift == 0) for note in notes)


@pytest.mark.parametrize(("tested", "words"), [(1.0, "worse"), (0.0, "not tested (manipulation check failed)")])
def test_adv_is_not_tested_where_its_attack_was_weak(tested: float, words: str):
    made = records(8)
    for record in made:
        scalars = {"adv_tested": tested if with_part(record.label, "adv") else 1.0}
        object.__setattr__(record, "scalars", scalars)
    found, notes = rows(made, [8])
    assert verdicts(found)["Adv, main effect"] == words
    assert verdicts(found)["LS, main effect"] == "better"
    assert any("L_adv/L_emo under 1.05 in most fine-tunings FAILED" in note for note in notes) == (tested == 0)


def test_another_primary_outcome_is_one_change_and_fewer_errors_are_better(monkeypatch: pytest.MonkeyPatch):
    """LS adds ten points of phone errors, Adv takes ten away; no judge has a say in them."""
    monkeypatch.setattr(declared, "PRIMARY_OUTCOME", "phone_error_rate")
    made = records(8, val_sign=-1.0)
    for record in made:
        record.points["phone_error_rate"] = 0.5 + (record.points["test_accuracy"] - 0.5) / 2
    found, notes = rows(made, [8])
    assert verdicts(found)["LS, main effect"] == "worse"
    assert verdicts(found)["Adv, main effect"] == "better"
    assert notes[0].startswith("Contrasts of the phone error rate, in points")

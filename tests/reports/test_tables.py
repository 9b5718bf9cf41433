"""Main, ablation and reward-model tables, on records with known numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from synthetic import Fake, grid, record

from ablations.grids import full, sensitivity
from ablations.outcomes import rollouts
from ablations.rendering.summary import over_seeds
from ablations.stats.inference import wilson
from ablations.stats.statistics import t_interval
from reports import effects
from reports.arm_tables import SEED_HACKED, results
from reports.effects import ablation
from reports.loading import Selection
from reports.reward_models import sheet as reward_models
from rrpo.experiment import dataflow
from rrpo.profiles import SMOKE

SHIFT = {"ls": 0.04, "eam": 0.02, "adv": 0.0}


def test_main_table_has_the_outcomes_and_the_cost_and_tests_nothing():
    selection = grid(SHIFT, seeds=4)
    sheet = results(selection)
    clean = [r.points["test_accuracy"].iloc[-1] for r in selection.of("rrpo")]
    assert sheet.row("rrpo")["clean_success"] == pytest.approx(t_interval(clean))
    assert sheet.row("rrpo")["rollouts"] == 140 * 32
    assert sheet.row("rrpo")["seconds_optimized"] == 101.5
    assert "verdict" not in {column.name for column in sheet.columns}
    assert any(
        note == "Not measured: naturalness (DNSMOS), naturalness (PLCMOS), E-MOS, N-MOS." for note in sheet.notes
    )


def test_seeds_that_hacked():
    """The hacked share starts at .1 and ends at .15, .25, .3 and .05: it rises by more than ten points in two seeds."""
    records = [hacking(seed, end) for seed, end in enumerate((0.15, 0.25, 0.3, 0.05))]
    assert over_seeds(SEED_HACKED, records) == wilson(2, 4)
    assert over_seeds(SEED_HACKED, [Fake("diffro", 0, records[0].points)]).n == 0, "no samples were kept"
    standing = hacking(0, 0.1)
    standing.__dict__["points"] = standing.points.iloc[:1]
    assert over_seeds(SEED_HACKED, [standing]).n == 0


def hacking(seed: int, end: float) -> Fake:
    """Return a cell with twenty samples at the start and at the end, all proxy hits; shares .1 and ``end`` of them contain
    clicks."""
    cell = record("diffro", seed, 0.1)
    clicks = [k < round(20 * share) for share in (0.1, end) for k in range(20)]
    columns = dict.fromkeys(("target", "proxy", "test"), "sad") | {"phone_errors": 0, "phones": 10}
    cell.__dict__["samples"] = pd.DataFrame({"step": [0] * 20 + [140] * 20, "artefact_click": clicks}).assign(**columns)
    return cell


def test_ablation_pairs_plus_one_with_diffro_and_minus_one_with_rrpo():
    sheet = ablation(grid(SHIFT, seeds=4))
    assert sheet is not None
    rows = {row[0]: sheet.row(str(row[0])) for row in sheet.rows}
    assert list(rows)[:2] == ["DiffRO", "DiffRO + LS"]
    assert rows["DiffRO + LS"]["difference"].mean == pytest.approx(0.04, abs=0.01)  # type: ignore[union-attr]
    assert rows["RRPO without LS"]["arm"] == "eam_adv"
    assert rows["RRPO without LS"]["difference"].mean == pytest.approx(-0.04, abs=0.01)  # type: ignore[union-attr]
    assert rows["RRPO"]["difference"].n == 0  # type: ignore[union-attr]
    assert ablation(Selection("x", (record("sft", 1, 0.5),), {"sft": 1}, ())) is None


def test_the_scale_of_a_gradient_stands_in_the_results_of_the_arm_that_has_one():
    records = [record("diffro", 1, 0.5), record("diffro_scaled", 1, 0.5, scalars={"gradient_match": 0.4})]
    table = results(Selection("x", tuple(records), {"diffro": 1, "diffro_scaled": 1}, ()))
    assert table.row("diffro_scaled")["gradient_match"].mean == 0.4  # type: ignore[union-attr]
    assert table.row("diffro")["gradient_match"].n == 0  # type: ignore[union-attr]
    plain = results(Selection("x", tuple(records[:1]), {"diffro": 1}, ()))
    assert "gradient_match" not in {column.name for column in plain.columns}


def test_diverged_cells_count_as_zero_in_the_ablation_too():
    selection = grid(SHIFT, seeds=4)
    records = tuple(r for r in selection.records if (r.label, r.seed) != ("eam_adv", 0))
    sheet = ablation(replace(selection, records=records, lost={("eam_adv", 0): "diverged"}))
    assert sheet is not None
    row = sheet.row("RRPO without LS")
    first = {
        row.name: row for row in effects.rows(replace(selection, records=records, lost={("eam_adv", 0): "diverged"}))
    }
    assert row["difference"].mean == pytest.approx(-first["LS, in RRPO"].interval.mean)  # type: ignore[union-attr]
    assert row["n"] == 4


def test_arms_that_share_a_reward_model_are_shown_once():
    def model(arm: str, finetune: str, epsilon: str, steps: str, rounds: str = "0") -> Fake:
        params = {
            "arm.finetune": finetune,
            "arm.regularizers.epsilon": epsilon,
            "arm.steps": steps,
            "arm.rounds": rounds,
        }
        params["profile.world.language"] = '"cmn"'
        scalars = {"rm_accuracy_test": 0.7, "rm_accuracy_valid": 0.8}
        scalars |= {"rm_accuracy_test_en": 0.5, "rm_accuracy_test_second_synthesiser": 0.4}
        return Fake(arm, 1, pd.DataFrame(), scalars=scalars, params=params)

    records = (
        model("sft", "false", "0.0", "0"),
        model("pretrained", "false", "0.1", "null"),
        model("diffro", "true", "0.0", "null"),
        model("short", "true", "0.0", "40"),
        model("ls", "true", "0.1", "null"),
        model("mined", "true", "0.0", "null", rounds="1"),
        model("short_mined", "true", "0.0", "40", rounds="1"),
    )
    sheet = reward_models(Selection("x", records, dict.fromkeys((r.label for r in records), 1), ()))
    assert sheet is not None
    assert [row[0] for row in sheet.rows] == ["sft", "diffro", "ls", "mined", "short_mined"]
    assert [column.heading for column in sheet.columns][2:] == [
        "valid, %",
        "test, %",
        "English, %",
        "second synthesiser, %",
    ]
    assert "trained on Mandarin" in sheet.notes[0]
    for fake in records:
        fake.params["profile.manifests.rm_pretrain.digest"] = '"abc"'
    sheet = reward_models(Selection("x", records, dict.fromkeys((r.label for r in records), 1), ()))
    assert sheet is not None
    assert "trained on the user's own speech" in sheet.notes[0]


@pytest.mark.parametrize(("cells", "models"), [(sensitivity, 21), (full, 11)])
def test_of_a_real_grid_every_reward_model_is_shown(cells: Callable, models: int):
    grid_cells = cells(SMOKE, [1])
    first = {dataflow.reward_model(cell.profile, cell.arm, 1).key: cell.label for cell in reversed(grid_cells)}
    assert len(first) == models
    records = tuple(
        Fake(cell.label, 1, pd.DataFrame(), scalars={"rm_accuracy_test": 0.7}, params=cell.params())
        for cell in grid_cells
    )
    sheet = reward_models(Selection("x", records, dict.fromkeys((cell.label for cell in grid_cells), 1), ()))
    assert sheet is not None
    assert {row[0] for row in sheet.rows} == set(first.values())


@pytest.mark.parametrize("metric", ["uptake", "clean_success"])
def test_no_column_of_the_components_stands_there_twice(metric: str):
    sheet = ablation(grid(SHIFT, seeds=4), metric)
    assert sheet is not None
    names = [column.name for column in sheet.columns]
    assert len(set(names)) == len(names)
    assert {metric, "hacked_share", "uptake"} <= set(names)
    assert all(len(row) == len(names) for row in sheet.rows)


def test_rollouts_follow_the_arms_own_steps():
    params = {"optimize.steps": "40", "optimize.batch": "32"}
    assert rollouts(Fake("short", 1, pd.DataFrame(), params=params)) == 1280
    assert math.isnan(rollouts(Fake("x", 1, pd.DataFrame())))


def test_correlation_of_pairs_and_share_of_the_oracles_gap():
    selection = grid(SHIFT)
    rng = np.random.default_rng(1)
    oracle = tuple(record("oracle", seed, 0.6 + 0.005 * rng.standard_normal()) for seed in range(8))
    framed = replace(selection, records=selection.records + oracle, planned=selection.planned | {"oracle": 8})
    sheet = ablation(framed)
    assert sheet is not None
    gains = {(r.label, r.seed): r.points["test_accuracy"].iloc[1] for r in framed.records}
    gains_of = {arm: [gains[arm, seed] for seed in range(8)] for arm in framed.arms}
    row = next(sheet.row(str(row[0])) for row in sheet.rows if row[1] == "ls")
    assert row["r"] == pytest.approx(pearsonr(gains_of["ls"], gains_of["diffro"]).statistic)
    mean = {arm: float(np.mean(values)) for arm, values in gains_of.items()}
    share = (mean["ls"] - mean["diffro"]) / (mean["oracle"] - mean["diffro"])
    assert row["closed"].mean == pytest.approx(share)  # type: ignore[union-attr]
    assert row["closed"].low < share < row["closed"].high  # type: ignore[union-attr]
    plain = ablation(selection)
    assert plain is not None
    assert "closed" not in {column.name for column in plain.columns}


def test_the_controls_manipulation_checks_are_told():
    """In three seeds, plain mixup made the reward model smoother than DiffRO's by .1, and focal loss had no effect."""
    values = {"diffro": (0.5, 0.9), "mixup": (0.6, 0.9), "focal-loss": (0.5, 0.9)}
    records = tuple(
        Fake(arm, seed, pd.DataFrame(), scalars={"rm_smoothness": smooth + 0.001 * seed, "rm_confidence": sure})
        for arm, (smooth, sure) in values.items()
        for seed in (1, 2, 3)
    )
    sheet = reward_models(Selection("x", records, dict.fromkeys(values, 3), ()))
    assert sheet is not None
    (checks,) = (note for note in sheet.notes if note.startswith("Manipulation checks"))
    assert "mixup on rm_smoothness +0.100" in checks
    assert "focal loss on rm_confidence +0.000 [+0.000, +0.000] FAILED" in checks

"""The table of the arms' parameters; cells of another profile are never pooled with the profile's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fakes
import pandas as pd
import pytest
from stored import report, store_cells
from synthetic import Fake

from ablations.grids import GRIDS
from ablations.tracking.recorder import cell_params
from reports import arm_tables
from reports.loading import Selection, select
from rrpo.arms import arm
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.profiles import SMOKE
from rrpo.settings import changed


def selection(labels: list[str]) -> Selection:
    cells = [Cell(label=label, arm=arm(label), seed=seed, profile=SMOKE) for label in labels for seed in (1, 2)]
    records = tuple(Fake(c.label, c.seed, pd.DataFrame(), params=cell_params(c)) for c in cells)
    return Selection("tiny", records, dict.fromkeys(labels, 2), ())


def test_a_row_an_arm_and_a_column_for_each_parameter_that_differs():
    sheet = arm_tables.parameters(selection(["sft", "diffro", "rrpo", "oracle"]))
    assert sheet is not None
    head, body = sheet.texts()
    assert {"epsilon", "mix_probability", "alpha", "finetune.steps", "optimize.steps", "pretrain.data.shortcut"} <= set(
        head
    )
    assert "lr" not in {name.rpartition(".")[2] for name in head}
    rows = {row[0]: dict(zip(head, row, strict=True)) for row in body}
    assert (rows["diffro"]["epsilon"], rows["rrpo"]["epsilon"], rows["oracle"]["epsilon"]) == ("0.0", "0.1", "–")
    assert (rows["sft"]["optimize.steps"], rows["oracle"]["finetune.steps"]) == ("0", "0")
    assert (rows["rrpo"]["pretrain.data.shortcut"], rows["oracle"]["pretrain.data.shortcut"]) == ("0.9", "0.0")


def test_one_arm_has_no_such_table():
    assert arm_tables.parameters(selection(["rrpo"])) is None


@pytest.mark.usefixtures("undrawn")
def test_cells_made_with_another_setting_are_told_apart_and_named(runs: Path, tmp_path: Path):
    other_profile = changed(fakes.PROFILE, {"optimize.beta": 0.5})
    store_cells(runs, fakes.cells(["sft", "rrpo"], [1, 2]))
    store_cells(runs, [replace(cell, profile=other_profile, trouble="-") for cell in fakes.cells(["sft", "rrpo"], [1])])
    refused = report(runs, tmp_path / "out", "--grid", "tiny", "--format", "csv")
    assert refused.exit_code == 2
    assert "the cells are of different profiles" in refused.output
    assert "smoke (4 cells), smoke+optimize.beta=0.5 (2 cells)" in refused.output
    for profile, count in (("smoke", 2), (other_profile.name, 1)):
        result = report(runs, tmp_path / "out", "--grid", "tiny", "--format", "csv", "--profile", profile)
        assert result.exit_code == 0, result.output
        assert f"rrpo,{count}" in (tmp_path / "out" / "table.csv").read_text()


def test_grids_of_different_settings_are_not_pooled(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(GRIDS._items, "more", GRIDS["tiny"])
    other_profile = changed(fakes.PROFILE, {"optimize.beta": 0.5})
    store_cells(runs, fakes.cells(["sft"], [1]))
    store_cells(runs, [replace(cell, profile=other_profile) for cell in fakes.cells(["rrpo"], [1])], grid="more")
    with pytest.raises(InputError, match="cells are of different profiles") as refused:
        select(runs, ["tiny", "more"])
    assert "smoke (1 cells), smoke+optimize.beta=0.5 (1 cells)" in str(refused.value)

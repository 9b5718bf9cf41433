"""Gains by evaluator, computed by hand, and the newest matrix that fits the records, read from a real store."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from ablations.stats.statistics import Interval
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import RunsFolder
from reports import evaluators
from reports.loading import Selection

ARMS = ("diffro", "rrpo", "placebo")


def record(tmp_path: Path, label: str, seed: int, common: bool = True) -> Record:
    """Return a record with gains of .4 (proxy), .3 (common RM) and .1 (gold) for DiffRO; .1 more by gold for other arms."""
    folder = tmp_path / f"{label}-{seed}"
    folder.mkdir()
    better = 0.0 if label == "diffro" else 0.1
    proxy = {"step": [0, 9], "proxy_accuracy": [0.5, 0.9], "test_accuracy": [0.6, 0.7 + better]}
    pd.DataFrame(proxy).to_parquet(folder / "points.parquet")
    if common:
        gold = {"step": [0, 9], "test_accuracy": proxy["test_accuracy"], "common_accuracy": [0.5, 0.8]}
        pd.DataFrame(gold).to_parquet(folder / "test_points.parquet")
    return Record(
        label=label,
        seed=seed,
        cell_hash=f"{label}{seed}",
        arm_hash="a",
        world_hash="w",
        profile="smoke",
        find=lambda: folder,
    )


def table(own: float = 0.9, other: float = 0.7, start: float = 0.5) -> pd.DataFrame:
    rows = [
        {"samples_of": a, "judged_by": b, "accuracy": own if a == b else other, "logprob": -1.0 - k - 0.1 * j}
        for k, a in enumerate(ARMS)
        for j, b in enumerate(ARMS)
    ]
    return pd.DataFrame(rows).assign(start_accuracy=start, confidence=0.8)


def selection(records: list[Record], folder: RunsFolder | None = None) -> Selection:
    arms = dict.fromkeys(dict.fromkeys(r.label for r in records), 2)
    selection = Selection("tiny", tuple(records), arms, ())
    return dataclasses.replace(selection, folder=folder)


def test_guided_decoding_gains_over_the_sft_cell_of_its_seed(tmp_path: Path) -> None:
    """A cell without optimization has a single checkpoint, its own."""
    cells = [record(tmp_path, arm, 1) for arm in ("sft", "emodiff")]
    for cell in cells:
        cell.__dict__["points"] = cell.points.iloc[:1] if cell.label == "sft" else cell.points.iloc[1:]
    sheet = evaluators.sheet(selection(cells), {})
    assert sheet is not None
    assert sheet.row("emodiff")["test"].mean == pytest.approx(0.2)  # type: ignore[union-attr]
    assert sheet.row("sft")["test"].mean == 0.0  # type: ignore[union-attr]
    assert evaluators.sheet(selection(cells[1:]), {}) is None, "without SFT there is no gain"


def test_gaps_by_hand(tmp_path: Path) -> None:
    records = [record(tmp_path, arm, seed) for seed in (1, 2) for arm in ARMS]
    sheet = evaluators.sheet(selection(records), {1: table(), 2: table(other=0.6)})
    assert sheet is not None
    row = sheet.row("diffro")
    expected = {"own": 0.4, "common": 0.3, "test": 0.1, "own_gap": 0.3, "common_gap": 0.2}
    for name, value in expected.items():
        mean = row[name]
        assert isinstance(mean, Interval)
        assert mean.mean == pytest.approx(value), name
    assert "third" not in row, "nobody was asked"
    assert not any("ablations.transfer" in note for note in sheet.notes)


def test_without_a_matrix_the_sheet_says_how_to_get_one_and_without_a_ruler_there_is_none(tmp_path: Path) -> None:
    sheet = evaluators.sheet(selection([record(tmp_path, "diffro", 1)]), {})
    assert sheet is not None
    assert any("python -m ablations.transfer --grid tiny" in note for note in sheet.notes)
    assert evaluators.sheet(selection([record(tmp_path, "diffro", 2, common=False)]), {}) is None


def test_the_matrix_is_the_mean_over_seeds(tmp_path: Path) -> None:
    records = [record(tmp_path, arm, 1) for arm in ("rrpo", "diffro", "elsewhere")]
    sheet = evaluators.matrix_sheet(selection(records), {1: table(), 2: table(other=0.6)})
    assert sheet is not None
    assert [row[0] for row in sheet.rows] == ["rrpo", "diffro"]
    assert sheet.rows[0][1:] == pytest.approx((0.4, 0.15))
    assert evaluators.matrix_sheet(selection(records), {}) is None


def test_the_newest_matrix_of_the_records_own_cells_is_read_from_the_store(tmp_path: Path) -> None:
    folder = RunsFolder(tmp_path / "runs")
    recorder.create(folder, "tiny")
    records = [record(tmp_path, arm, 1) for arm in ARMS]
    tracker = Tracker(folder, "tiny", {}, {})
    own = {arm: f"{arm}1" for arm in ARMS}
    for index, cells in enumerate((own, own, {"diffro": "of another version"})):
        path = tmp_path / f"{index}" / "transfer.parquet"
        path.parent.mkdir()
        table(own=0.9 - 0.1 * index).to_parquet(path)
        params = {f"cell.{arm}": cell for arm, cell in cells.items()}
        tracker.record("transfer", "matrix", {"seed": "1"}, params, {}, {path.name: path}, key=str(index))
    matrices = evaluators.load(selection(records, folder))
    assert list(matrices) == [1]
    assert matrices[1]["accuracy"].max() == pytest.approx(0.8)
    assert evaluators.load(selection(records)) == {}


def test_an_arm_that_speaks_as_other_speakers_has_no_gain_over_sft(tmp_path: Path) -> None:
    """Both arms have a single checkpoint, of their own; SFT speaks as the speakers of only one."""
    sft, guided, zero_shot = (record(tmp_path, arm, 1) for arm in ("sft", "emodiff", "zet"))
    for cell in (guided, zero_shot):
        cell.__dict__["points"] = cell.points.iloc[1:]
    guided.__dict__["config"] = {"arm.reversal": "null"}
    zero_shot.__dict__["config"] = {"arm.reversal": "1.0"}
    sheet = evaluators.sheet(selection([sft, guided, zero_shot]), {})
    assert sheet is not None
    assert [row[0] for row in sheet.rows] == ["sft", "emodiff"]

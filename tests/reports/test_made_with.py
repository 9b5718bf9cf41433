"""Devices and versions, from the stage markers in a record."""

import json
from pathlib import Path

import pytest

from ablations.tracking.records import Record
from reports.made_with import apart, devices, stage_versions


def record(label: str, seed: int, folder: Path) -> Record:
    return Record(label=label, seed=seed, find=lambda: folder)


@pytest.fixture
def record_on(tmp_path: Path):
    """Return a function that makes a record whose optimization ran on a device: ``cpu``, or a GPU's name."""

    def make(label: str, seed: int, device: str) -> Record:
        folder = tmp_path / f"{label}-{seed}"
        on = {"device": "cpu"} if device == "cpu" else {"device": "cuda", "gpu": device}
        for role, name in (("optimized", "optimize"), ("scored", "score")):
            (folder / role).mkdir(parents=True)
            marker = {"name": name, "version": 3} | (on if name == "optimize" else {"device": "cpu"})
            (folder / role / "stage.json").write_text(json.dumps(marker))
        return record(label, seed, folder)

    return make


def test_each_device_is_named_with_its_cells_and_seeds(record_on):
    cells = [record_on(arm, seed, "cpu") for arm in ("diffro", "rrpo") for seed in (1, 2, 3)]
    cells += [record_on(arm, 5, "NVIDIA X") for arm in ("diffro", "rrpo")]
    assert devices(cells) == "Policies were optimized on CPU (6 cells, seeds 1 to 3), NVIDIA X (2 cells, seeds 5)."
    assert apart(cells) == ""
    assert stage_versions(cells) == {("optimize", 3): 8, ("score", 3): 8}


def test_a_seed_whose_arms_ran_on_two_devices_is_told_by_setting(record_on):
    cells = [
        record_on("diffro@lr1", 1, "cpu"),
        record_on("rrpo@lr1", 1, "NVIDIA X"),
        record_on("diffro@lr2", 1, "cpu"),
        record_on("rrpo@lr2", 1, "cpu"),
    ]
    assert "arms of seed 1 at lr1, which share" in apart(cells)
    assert apart(cells[2:]) == ""
    assert "arms of seed 2, which share" in apart([record_on("diffro", 2, "cpu"), record_on("rrpo", 2, "NVIDIA X")])


def test_cells_without_a_policy_have_no_device(tmp_path: Path):
    alone = [record("diffro", 1, tmp_path)]
    assert (devices(alone), apart(alone), stage_versions(alone)) == ("", "", {})

"""A recorded cell is built again and compared: equal, different, or not possible."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import fakes
import numpy as np
import pandas as pd
import pytest
from fixtures import Run, run_cells
from typer.testing import CliRunner, Result

from ablations import reproduce
from ablations.grids import GRIDS, arms
from ablations.tracking.cell_file import cell_json, read_cell
from ablations.tracking.reader import Store
from ablations.tracking.records import SCALARS_FILE, Record
from ablations.tracking.runs_folder import check
from rrpo.corpus.config import ManifestConfig
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import place, walk
from rrpo.profiles import PROFILES


def test_every_cell_of_every_grid_survives_its_file():
    others = [profile for profile in PROFILES.values() if profile.cosyvoice is None and profile != PROFILES["embedded"]]
    cells = [cell for grid in GRIDS.values() for cell in grid.cells(PROFILES["embedded"], [3])]
    for cell in [*cells, *(dataclasses.replace(cells[0], profile=profile) for profile in others)]:
        again = read_cell(cell_json(cell))
        assert cell_json(again) == cell_json(cell)
        assert again.arm == cell.arm
        assert again.hash == cell.hash
        assert again.profile.card == cell.profile.card


def test_what_is_no_part_of_the_identity_survives_too():
    manifests = {"annotated": ManifestConfig(path="/somewhere/a.jsonl", digest="0" * 32)}
    cell = Cell(
        label="x",
        arm=dataclasses.replace(arms()["rrpo"], tau=(2.0, 1.0), lr=1),
        seed=1,
        profile=dataclasses.replace(PROFILES["smoke"], manifests=manifests),
        policy=False,
    )
    again = read_cell(cell_json(cell))
    assert again.hash == cell.hash
    assert again.arm == cell.arm
    assert again.profile.manifests["annotated"].path == "/somewhere/a.jsonl"


@pytest.mark.parametrize(
    "change",
    [{"nosuch": 1}, {"seed": None, "arm": {"nosuch": 1}}, {"profile": 3}],
    ids=["field", "inner field", "type"],
)
def test_a_cell_of_another_version_of_the_code_is_refused(change: dict[str, object]):
    cell = Cell(label="x", arm=arms()["rrpo"], seed=1, profile=PROFILES["smoke"])
    with pytest.raises(InputError, match="does not fit this version"):
        read_cell(json.dumps(json.loads(cell_json(cell)) | change))


@pytest.mark.parametrize(
    ("recorded", "rebuilt", "size"),
    [
        (0.5, 0.5, 0.0),
        (0.5, 0.4, 0.1),
        (-10.0, -11.0, 0.1),
        (math.nan, math.nan, 0.0),
        (math.nan, 0.0, math.inf),
        (0.0, math.nan, math.inf),
        (math.inf, math.inf, 0.0),
    ],
)
def test_how_a_difference_is_measured(recorded: float, rebuilt: float, size: float):
    assert reproduce.size(recorded, rebuilt) == pytest.approx(size)


def test_scalars_and_tables_are_compared_number_by_number(tmp_path: Path):
    differences = reproduce.differences(
        reproduce.results({"a": 1.0, "b": 2.0, "seconds": 5.0}, {}),
        reproduce.results({"a": 1.0, "c": 3.0, "d": math.nan, "seconds_x": 1}, {}),
    )
    assert dict(differences["size"]) == {"a": 0.0, "b": math.inf, "c": math.inf}
    table = pd.DataFrame({"step": [0, 1], "x": [0.5, math.nan], "word": ["a", "b"], "seconds": [1.0, 2.0]})
    rebuilt = table.assign(x=[0.75, math.nan], word=["a", "c"], seconds=[7.0, 9.0])

    def results_of(frame: pd.DataFrame) -> dict[str, pd.Series]:
        frame.to_parquet(tmp_path / "points.parquet")
        return reproduce.results({}, {"points.parquet": tmp_path / "points.parquet"})

    assert reproduce.differences(results_of(table), results_of(table))["size"].tolist() == [0.0] * 4
    assert dict(reproduce.differences(results_of(table), results_of(rebuilt))["size"]) == {
        "points.parquet: rows": 0.0,
        "points.parquet: step": 0.0,
        "points.parquet: x": 0.25,
        "points.parquet: word, rows unlike": 1.0,
    }
    assert set(reproduce.differences(results_of(table), {})["size"]) == {math.inf}
    assert list(reproduce.differences(results_of(table), results_of(table.head(1))).index) == ["points.parquet: rows"]


@pytest.fixture(scope="module")
def original(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a recorded fake cell, which the tests of this module copy."""
    folder = Path(shutil.copytree(template, tmp_path_factory.mktemp("original") / "runs"))
    run_cells(fakes.cells(["rrpo"], [1]), folder=folder)
    return folder


@pytest.fixture
def record(original: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """A recorded fake cell for `reproduce`."""
    (cell,) = fakes.cells(["rrpo"], [1])
    shutil.copytree(original, runs, dirs_exist_ok=True)
    monkeypatch.setattr(reproduce, "read_cell", lambda text: cell)
    return Store(check(runs)).records("tiny")[0]


def call(runs: Path, *arguments: str) -> Result:
    return CliRunner().invoke(reproduce.app, ["--workers", "1", "--runs-dir", str(runs), *arguments])


def test_the_same_code_gives_the_same_bits_and_leaves_nothing(runs: Path, record: Record):
    before = len(fakes.built(runs))
    result = call(runs, record.run_id)
    assert result.exit_code == 0, result.output
    assert "REPRODUCED" in result.output
    assert "bit-equal" in result.output
    assert "the same software" in result.output
    assert "stage 5 of 5 done" in result.output
    assert len(fakes.built(runs)) == before, "in a separate store"
    assert list((runs / "reproduced").iterdir()) == []


def test_the_world_can_be_taken_as_it_is_stored(runs: Path, record: Record):
    result = call(runs, record.run_id, "--reuse-world")
    assert result.exit_code == 0, result.output
    assert "1 stages of the world" in result.output
    assert "stage 4 of 4 done" in result.output
    assert (runs / "stages").is_dir()


def test_numbers_that_differ_in_the_last_bit_are_told_and_end_with_1(runs: Path, record: Record):
    path = record.folder / SCALARS_FILE
    scalars = json.loads(path.read_text())
    path.write_text(json.dumps(scalars | {"rm_ece": math.nextafter(scalars["rm_ece"], 1)}))
    points = pd.read_parquet(record.folder / "points.parquet")
    points.assign(proxy_accuracy=np.nextafter(points["proxy_accuracy"], 1)).to_parquet(record.folder / "points.parquet")
    result = call(runs, record.run_id)
    assert result.exit_code == 1, result.output
    assert "NOT REPRODUCED" in result.output
    assert "required to be equal to the last bit" in result.output
    assert "  rm_ece: " in result.output
    assert "  points.parquet: proxy_accuracy: " in result.output
    again = call(runs, record.run_id)
    assert again.exit_code == 1, again.output
    assert "stage 5 of 5 done" in again.output, "nothing is reused from the first call"
    kept = sorted(folder.name for folder in (runs / "reproduced").iterdir())
    assert kept == [f"{record.cell_hash[:12]}-differs-{number}" for number in (1, 2)]


@pytest.mark.parametrize(("before", "stages"), [({"device": "cpu", "reuse_world": False}, 4), ({"device": "cuda"}, 5)])
def test_an_interrupted_call_is_resumed_by_the_same_call_only(
    runs: Path, record: Record, before: dict[str, object], stages: int
):
    """The base policy is there already."""
    (cell,) = fakes.cells(["rrpo"], [1])
    scratch = runs / "reproduced" / record.cell_hash[:12]
    scratch.mkdir(parents=True)
    (scratch / "options.json").write_text(json.dumps(before))
    stage = next(iter(walk(*cell.stages.values())))
    shutil.copytree(stage.path(runs), place(scratch, stage.folder))
    result = call(runs, record.run_id)
    assert result.exit_code == 0, result.output
    assert f"stage {stages} of {stages} done" in result.output


def test_other_software_is_told_and_gets_the_tolerance(runs: Path, record: Record):
    points = pd.read_parquet(record.folder / "points.parquet")
    points.assign(proxy_accuracy=points["proxy_accuracy"] + 0.01).to_parquet(record.folder / "points.parquet")
    path = record.folder / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "1.0"}))
    result = call(runs, record.run_id)
    assert result.exit_code == 0, result.output
    assert "torch: 1.0 when recorded" in result.output
    assert "equal within 0.05" in result.output
    assert call(runs, record.run_id, "--tolerance", "0.001").exit_code == 1


def test_another_executor_is_told_and_gets_the_tolerance(runs: Path, record: Record):
    """It was trained in a stack, and is built again singly: the same up to rounding."""
    points = pd.read_parquet(record.folder / "points.parquet")
    points.assign(proxy_accuracy=points["proxy_accuracy"] + 0.01).to_parquet(record.folder / "points.parquet")
    for path in runs.rglob("stage.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"executor": "stacked(2)"}))
    result = call(runs, record.run_id)
    assert result.exit_code == 0, result.output
    assert "executor: stacked(2) when recorded, single now" in result.output


def test_a_cell_that_cannot_be_built_ends_with_1(
    runs: Path, record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "trouble").write_text("raise")
    (cell,) = fakes.cells(["rrpo"], [1], {"rrpo/1": tmp_path / "trouble"})
    monkeypatch.setattr(reproduce, "read_cell", lambda text: cell)
    result = call(runs, record.run_id)
    assert result.exit_code == 1, result.output
    assert "could not be built again" in result.output
    assert "planted failure" in result.output
    assert "stages have new versions" in result.output


def test_bad_input_ends_with_2(runs: Path, record: Record, tmp_path: Path):
    store = Store(check(runs))
    for arguments, words in [
        (["0" * 32], "no run with that id"),
        ([store.runs("tiny", "parent")[0].info.run_id], "the run is not a cell's"),
        ([record.run_id, "--device", "tpu"], "no device of that name"),
        ([record.run_id, "--workers", "0"], "--workers must be"),
    ]:
        result = call(runs, *arguments)
        assert result.exit_code == 2, result.output
        assert words in result.output
    assert call(tmp_path / "nowhere", record.run_id).exit_code == 2
    (record.folder / "cell.json").unlink()
    assert "no cell.json" in call(runs, record.run_id).output
    store.client.delete_tag(record.run_id, "complete")
    assert "is not complete" in call(runs, record.run_id).output
    shutil.rmtree(runs)


def test_optional_results_are_compared_where_they_can_be_built(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (with_listener,) = fakes.cells(["rrpo"], [1], listener="voice")
    (plain,) = fakes.cells(["rrpo"], [1])
    run([with_listener])
    (record,) = Store(check(runs)).records("tiny")
    counts = []
    for cell, expected in ((with_listener, False), (plain, True)):
        monkeypatch.setattr(reproduce, "read_cell", lambda text, cell=cell: cell)
        result = call(runs, record.run_id)
        assert result.exit_code == 0, result.output
        assert ("not installed here: voice" in result.output) == expected
        counts.append(int(result.output.split("REPRODUCED: ")[1].split()[0]))
    assert counts[0] - counts[1] == 4, "one scalar, and the row count and two columns of its table"

"""A grid's runs are saved as files, and restored they are the same runs to every reader."""

from __future__ import annotations

import shutil
from pathlib import Path

import fakes
import pytest
from fixtures import Run
from typer.testing import CliRunner

from ablations import archive as command
from ablations.tracking import archive
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check


@pytest.fixture
def saved(runs: Path, run: Run, tmp_path: Path) -> Path:
    """An archive of a grid of two arms x two seeds, one of whose cells failed."""
    (tmp_path / "trouble").write_text("diverge")
    outcome, _ = run(fakes.cells(["sft", "diffro"], [1, 2], {"diffro/2": tmp_path / "trouble"}))
    assert outcome.done == 3
    list(archive.save(Store(check(runs)), "tiny", tmp_path / "archive"))
    return tmp_path / "archive"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.zip")}


def test_restored_runs_are_the_same_to_every_reader(runs: Path, saved: Path, tmp_path: Path, run: Run):
    assert {name for name in contents(saved)} == {"seed-1.zip", "seed-2.zip", "invocations.zip"}
    restored = check(tmp_path / "restored")
    files = list(archive.restore(restored, saved))
    assert [(file.path.stem, file.runs, file.new) for file in files] == [
        ("invocations", 1, 1),
        ("seed-1", 2, 2),
        ("seed-2", 2, 2),
    ]
    before, after = Store(check(runs)), Store(restored)
    (complete, lost), (complete_again, lost_again) = before.states("tiny"), after.states("tiny")
    assert (complete.keys(), lost) == (complete_again.keys(), lost_again)
    assert [lost.kind for lost in lost_again.values()] == ["diverged"]
    assert [plan.plan for plan in after.plans("tiny")] == [{"sft": (1, 2), "diffro": (1, 2)}]
    for key, record in complete.items():
        again = complete_again[key]
        assert (again.label, again.seed, again.params, again.recorded) == (
            record.label,
            record.seed,
            record.params,
            record.recorded,
        )
        assert (again.scalars, again.config) == (record.scalars, record.config)
        for table in ("curves", "points", "samples"):
            assert getattr(again, table).equals(getattr(record, table))
        assert {name for name in record.tags if again.tags.get(name) != record.tags[name]} <= {
            *("mlflow.user", "owner_host", "owner_name", "owner_pid", "owner_started"),
        }
    history = [
        [(point.step, point.value) for point in store.client.get_metric_history(run_id, "train/val_accuracy")]
        for store, cells in ((before, complete), (after, complete_again))
        for run_id in [next(record.run_id for record in cells.values() if record.label == "diffro")]
    ]
    assert history[0] == history[1] != []
    assert len(fakes.built(restored.root)) == 0
    outcome, _ = run(fakes.cells(["sft", "diffro"], [1]), folder=restored.root)
    assert outcome.done == 2
    assert fakes.built(restored.root) == [], "nothing is run again"


def test_what_is_left_out(runs: Path, saved: Path):
    (record,) = (each for each in Store(check(runs)).records("tiny") if each.label == "diffro")
    assert (record.folder / "audio").is_dir()
    assert (record.folder / "log.txt").is_file()
    names = {name for path in saved.rglob("*.zip") for run in archive._read(path).values() for name in run}
    assert "artifacts/points.parquet" in names
    assert not [name for name in names if "audio" in name or "log.txt" in name]
    assert str(runs).encode() not in b"".join(
        content for path in saved.rglob("*.zip") for run in archive._read(path).values() for content in run.values()
    )


def test_equal_runs_give_equal_bytes_and_nothing_in_an_archive_is_lost(
    runs: Path, saved: Path, tmp_path: Path, run: Run
):
    before = contents(saved)
    files = list(archive.save(Store(check(runs)), "tiny", saved))
    assert [file.new for file in files] == [0, 0, 0]
    restored = check(tmp_path / "restored")
    list(archive.restore(restored, saved))
    assert [file.new for file in archive.restore(restored, saved)] == [0, 0, 0], "restored once"
    list(archive.save(Store(restored), "tiny", tmp_path / "again"))
    assert contents(tmp_path / "again") == before
    run(fakes.cells(["rrpo"], [1]), folder=tmp_path / "other")
    files = list(archive.save(Store(check(tmp_path / "other")), "tiny", saved))
    assert [(file.path.stem, file.runs, file.new) for file in files] == [("invocations", 2, 1), ("seed-1", 3, 1)]
    assert contents(saved)["seed-2.zip"] == before["seed-2.zip"]


def test_the_command_and_its_errors(runs: Path, saved: Path, tmp_path: Path):
    def invoke(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(command.app, [str(argument) for argument in arguments])
        return result.exit_code, result.output

    code, text = invoke("save", "--grid", "tiny", "--to", tmp_path / "new", "--runs-dir", runs)
    assert code == 0
    assert f"{tmp_path}/new/tiny/seed-1.zip: 2 runs, 2 of them saved now, 0." in text
    code, text = invoke("restore", tmp_path / "new", "--runs-dir", tmp_path / "runs2")
    assert code == 0
    assert f"{tmp_path}/new/tiny/seed-2.zip: 2 runs, 2 of them restored now, 0." in text
    for arguments, message in [
        (("save", "--grid", "tiny", "--runs-dir", tmp_path / "none"), "there is no runs folder"),
        (("save", "--grid", "tinny", "--runs-dir", runs), "tinny"),
        (("restore", tmp_path / "none", "--runs-dir", runs), "there is no archive of runs in that folder"),
    ]:
        code, text = invoke(*arguments)
        assert (code, message in text) == (2, True), text
    damaged = tmp_path / "new" / "tiny" / "seed-1.zip"
    whole = damaged.read_bytes()
    for content in (whole[:-100], b"", whole[:200] + b"x" * 200 + whole[400:]):
        damaged.write_bytes(content)
        code, text = invoke("restore", damaged.parent, "--runs-dir", tmp_path / "runs3")
        assert (code, "a file of the archive is damaged" in text) == (2, True), text
    shutil.rmtree(damaged.parent)

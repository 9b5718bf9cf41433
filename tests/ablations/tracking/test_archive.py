"""A grid's runs are saved as files, and restored they are the same runs to every reader."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

import fakes
import pytest
from fixtures import run_cells
from typer.testing import CliRunner

from ablations import archive as command
from ablations import status
from ablations.execution import plan
from ablations.execution.estimate import Estimator
from ablations.execution.request import Request
from ablations.tracking import archive
from ablations.tracking.outbox import Entry, Outbox
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import RunsFolder, check
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell


@pytest.fixture(scope="module")
def original(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a grid of two arms x two seeds, one of whose cells failed, and its archive."""
    root = tmp_path_factory.mktemp("original")
    shutil.copytree(template, root / "runs")
    trouble = root / "trouble"
    trouble.write_text("diverge")
    outcome, _ = run_cells(fakes.cells(["sft", "diffro"], [1, 2], {"diffro/2": trouble}), folder=root / "runs")
    assert outcome.done == 3
    list(archive.save(Store(check(root / "runs")), "tiny", root / "archive"))
    trouble.unlink()
    return root


@pytest.fixture
def runs(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original / "runs", tmp_path / "runs"))


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original / "archive", tmp_path / "archive"))


@pytest.fixture
def other(template: Path, tmp_path: Path) -> RunsFolder:
    """The runs folder of another machine."""
    return check(Path(shutil.copytree(template, tmp_path / "other")))


def cells_of(original: Path, seeds: Sequence[int] = (1, 2)) -> list[Cell]:
    """Return the cells of the grid, none of which fails any more."""
    return fakes.cells(["sft", "diffro"], seeds, {"diffro/2": original / "trouble"})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.zip")}


def test_restored_runs_are_the_same_to_every_reader(original: Path, runs: Path, saved: Path, other: RunsFolder):
    assert contents(saved).keys() == {"seed-1.zip", "seed-2.zip", "invocations.zip"}
    files = list(archive.restore(other, saved))
    assert [(file.path.stem, file.runs, file.new) for file in files] == [
        ("invocations", 1, 1),
        ("seed-1", 2, 2),
        ("seed-2", 2, 2),
    ]
    before, after = Store(check(runs)), Store(other)
    (complete, lost), (complete_again, lost_again) = before.states("tiny"), after.states("tiny")
    assert (complete.keys(), lost) == (complete_again.keys(), lost_again)
    assert [lost.kind for lost in lost_again.values()] == ["diverged"]
    assert [plan.plan for plan in after.plans("tiny")] == [{"sft": (1, 2), "diffro": (1, 2)}]
    for kind in ("cell", "parent"):
        times = [
            [(r.info.run_name, r.info.start_time, r.info.end_time) for r in s.runs("tiny", kind)]
            for s in (before, after)
        ]
        assert sorted(times[0]) == sorted(times[1])
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
            *("command", "mlflow.user", "owner_host", "owner_name", "owner_pid", "owner_started"),
        }
    history = [
        [(point.step, point.value) for point in store.client.get_metric_history(run_id, "train/val_accuracy")]
        for store, cells in ((before, complete), (after, complete_again))
        for run_id in [next(record.run_id for record in cells.values() if record.label == "diffro")]
    ]
    assert history[0] == history[1] != []
    rows = status.status(after, "tiny")
    assert sorted(row.cell for row in rows if row.state == "done") == ["diffro/1", "sft/1", "sft/2"]
    assert status.summary(rows) == "3 done, 1 failed"
    outcome, _ = run_cells(cells_of(original, [1]), folder=other.root)
    assert outcome.done == 2
    assert fakes.built(other.root) == [], "nothing is run again"


def members(archived: Path) -> dict[str, bytes]:
    """Return the files of all runs in an archive, ``KEY/NAME`` -> content."""
    return {
        f"{key}/{name}": content
        for path in archived.rglob("*.zip")
        for key, files in archive._read(path).items()
        for name, content in files.items()
    }


def test_what_is_left_out(other: RunsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    command_line = "run.py --runs-dir '/home/anna/my project/runs' --manifest annotated=/home/anna/patients/train.jsonl"
    state = {"git_sha": "a" * 40, "dirty": "true", "command": command_line}
    monkeypatch.setattr("ablations.execution.runner.git_state", lambda: state)
    monkeypatch.setattr("ablations.tracking.recorder.dirty_diff", lambda: "new file secret.py")
    run_cells(fakes.cells(["diffro"], [1]), folder=other.root)
    store = Store(other)
    (record,) = store.records("tiny")
    for name in ("audio", "log.txt", "dirty.diff"):
        assert (record.folder / name).exists()
    (record.folder / "environment.json").write_text(json.dumps({"command": command_line}))
    for each in store.runs("tiny", "parent"):
        store.client.set_tag(each.info.run_id, "ended_by", "its process 17 on annas-computer has ended")
    list(archive.save(store, "tiny", tmp_path / "archive"))
    files = members(tmp_path / "archive")
    assert [name for name in files if name.endswith("artifacts/points.parquet")]
    assert not [name for name in files if "audio" in name or "log.txt" in name or "dirty.diff" in name]
    assert not [name for name, content in files.items() if b"anna" in content or str(tmp_path).encode() in content]
    (entry,) = (json.loads(text) for name, text in files.items() if name == f"{record.tags['entry']}/entry.json")
    assert entry["tags"]["command"] == "run.py --runs-dir 'runs' --manifest annotated=train.jsonl"


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("/home/anna/a.wav", "a.wav"),
        ('{"path": "/home/anna/my speech/a.wav"}', '{"path": "a.wav"}'),
        (
            "FileNotFoundError: [Errno 2] No such file: '/x/y z/a b.wav'",
            "FileNotFoundError: [Errno 2] No such file: 'a b.wav'",
        ),
        ("arm/seed, 3/4, http://host/a/b, a/b/c.py", "arm/seed, 3/4, http://host/a/b, a/b/c.py"),
    ],
)
def test_paths_lose_their_folders(text: str, without: str):
    assert archive.without_folders(text) == without


def states(store: Store) -> dict[str, str]:
    """Return cell name -> complete or the kind of failure."""
    complete, attempts = store.cells("tiny")
    cells = {f"{record.label}/{record.seed}": "complete" for record in complete.values()}
    return cells | {f"{attempt.label}/{attempt.seed}": attempt.state for attempt in attempts}


def test_a_better_state_of_a_run_replaces_a_worse_one_and_never_the_reverse(
    original: Path, runs: Path, saved: Path, other: RunsFolder
):
    """The other machine completes the cell that failed on this one, and has another run of one that is complete."""
    list(archive.restore(other, saved / "tiny" / "seed-2.zip"))
    assert run_cells(cells_of(original), folder=other.root, retry_failed=True)[0].done == 4
    files = list(archive.save(Store(other), "tiny", saved))
    assert {file.path.stem: file.new for file in files} == {"invocations": 1, "seed-1": 0, "seed-2": 1}
    best = contents(saved)
    files = list(archive.save(Store(check(runs)), "tiny", saved))
    assert [file.new for file in files] == [0, 0, 0]
    assert contents(saved) == best
    assert states(Store(check(runs)))["diffro/2"] == "diverged"
    files = list(archive.restore(check(runs), saved))
    assert {file.path.stem: file.new for file in files} == {"invocations": 1, "seed-1": 0, "seed-2": 1}
    assert set(states(Store(check(runs))).values()) == {"complete"}


def test_optional_results_are_added_to_archive_and_runs(runs: Path, saved: Path, other: RunsFolder, tmp_path: Path):
    store, heard = Store(check(runs)), fakes.cells(["diffro"], [1], listener="voice")
    list(archive.restore(other, saved / "tiny" / "seed-1.zip"))
    request = Request(grid="tiny", cells=tuple(heard), device="cpu", workers=1, folder=other)
    assert (
        "; 1 lack optional results, but their stages are not stored here"
        in plan.make(request).lines(Estimator(other.root))[0]
    )
    assert run_cells(heard, folder=other.root)[0].done == 1
    assert fakes.built(other.root) == [], "no policy is optimized again for them"
    run_cells(heard, folder=runs)
    assert {file.path.stem: file.new for file in archive.save(store, "tiny", saved)}["seed-1"] == 1
    (seed,) = archive.restore(other, saved / "tiny" / "seed-1.zip")
    assert seed.new == 1
    record, complete = (each.states("tiny")[0][heard[0].hash] for each in (Store(other), store))
    assert record.optional == {"voice"}
    assert record.scalars == complete.scalars
    assert record.points.equals(complete.points)
    list(archive.save(Store(other), "tiny", tmp_path / "again"))
    assert contents(tmp_path / "again")["seed-1.zip"] == contents(saved)["seed-1.zip"]


def test_a_full_disk_is_told_and_what_is_restored_is_kept(
    saved: Path, other: RunsFolder, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = archive.restore(other, saved)
    first = next(files)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match=r"cannot be restored(.|\n)*No space left(.|\n)*free space in"):
            next(files)
    again = {file.path: file.new for file in archive.restore(other, saved)}
    assert (first.new > 0, again.pop(first.path)) == (True, 0), "it is kept"
    assert sum(again.values()) > 0


def test_a_run_without_its_artifacts_never_replaces_a_whole_one(runs: Path, saved: Path, tmp_path: Path):
    before = contents(saved)
    for record in Store(check(runs)).records("tiny"):
        shutil.rmtree(record.folder)
    assert [file.new for file in archive.save(Store(check(runs)), "tiny", saved)] == [0, 0, 0]
    assert contents(saved) == before
    with pytest.raises(InputError, match="the artifacts of a recorded cell are gone"):
        list(archive.save(Store(check(runs)), "tiny", tmp_path / "new"))


@pytest.mark.parametrize(
    "name",
    [
        "{key}/artifacts/../../../../victim.txt",
        "{key}/artifacts/..",
        "{key}/artifacts//victim.txt",
        "{key}/artifacts/a\\b",
        "/tmp/victim.txt",
        "../{key}/entry.json",
        "{key}/other.txt",
        "cell-*/entry.json",
        "cell-00000000000000000000000a/artifacts/no_entry",
    ],
)
def test_a_file_with_a_foreign_member_is_refused(saved: Path, tmp_path: Path, name: str):
    path = saved / "tiny" / "seed-1.zip"
    key = next(iter(archive._read(path)))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name.format(key=key), b"x")
    with pytest.raises(InputError, match="a file of the archive is damaged"):
        list(archive.restore(check(tmp_path / "none"), path))
    assert not (tmp_path / "none").exists()


def test_what_waits_for_the_store_for_another_reason_holds_nothing_up(saved: Path, other: RunsFolder):
    outbox = Outbox(other.outbox)
    outbox.put(Entry(key="optional-x", experiment="tiny", name="x", cell="gone", adds=True))
    list(archive.restore(other, saved))
    assert len(Store(other).records("tiny")) == 3
    assert len(outbox.pending()) == 1


def test_equal_runs_give_equal_bytes_and_nothing_in_an_archive_is_lost(
    runs: Path, saved: Path, other: RunsFolder, tmp_path: Path
):
    before = contents(saved)
    assert [file.new for file in archive.save(Store(check(runs)), "tiny", saved)] == [0, 0, 0]
    list(archive.restore(other, saved))
    assert [file.new for file in archive.restore(other, saved)] == [0, 0, 0], "restored once"
    list(archive.save(Store(other), "tiny", tmp_path / "again"))
    assert contents(tmp_path / "again") == before
    path = saved / "tiny" / "seed-1.zip"
    first, *_ = archive._read(path).items()
    archive._write(path, dict([first]))
    files = list(archive.save(Store(check(runs)), "tiny", saved))
    assert {file.path.stem: (file.runs, file.new) for file in files}["seed-1"] == (2, 1)
    assert contents(saved) == before


def test_processes_that_save_into_one_archive_lose_nothing(
    runs: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each process has one of a seed's two runs; the second one starts while the first one is writing."""
    path, store, write = tmp_path / "both" / "tiny" / "seed-1.zip", Store(check(runs)), archive._write
    shares = iter([[run] for run in archive._runs(store, "tiny") if run.data.tags.get("seed") == "1"])
    monkeypatch.setattr(archive, "_runs", lambda store, grid: next(shares))
    second = threading.Thread(target=lambda: list(archive.save(store, "tiny", tmp_path / "both")))

    def slow(path: Path, members: archive.Members) -> None:
        if second.ident is None:
            second.start()
            second.join(0.3)
        write(path, members)

    monkeypatch.setattr(archive, "_write", slow)
    list(archive.save(store, "tiny", tmp_path / "both"))
    second.join()
    assert path.read_bytes() == (saved / "tiny" / "seed-1.zip").read_bytes()


def test_the_command_and_its_errors(runs: Path, tmp_path: Path):
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
        (("save", "--grid", "tiny", "--runs-dir", runs, "--to", runs / "mlflow.db"), "the runs cannot be saved"),
        (("restore", tmp_path / "none", "--runs-dir", runs), "there is no archive of runs at that path"),
    ]:
        code, text = invoke(*arguments)
        assert (code, message in text) == (2, True), text
    damaged = tmp_path / "new" / "tiny" / "seed-1.zip"
    whole = damaged.read_bytes()
    for content in (whole[:-100], b"", whole[:200] + b"x" * 200 + whole[400:]):
        damaged.write_bytes(content)
        code, text = invoke("restore", damaged, "--runs-dir", tmp_path / "runs3")
        assert (code, "a file of the archive is damaged" in text) == (2, True), text

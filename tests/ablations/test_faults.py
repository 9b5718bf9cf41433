"""Fault injection on real processes: killed workers and parents, racing runners, a full disk. Long tests are marked."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from io import StringIO
from pathlib import Path

import fakes
import fixtures
import psutil
import pytest
from fixtures import Run, wait_until_started
from typer.testing import CliRunner

from ablations import status
from ablations.execution.planned import read_plan
from ablations.tracking import records
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from rrpo.pipeline.claims import Claims, Owner, this_process
from rrpo.pipeline.stages import MARKER

HERE = Path(__file__).parent
TINY = [sys.executable, str(HERE / "tiny.py"), "--grid", "tiny", "--device", "cpu", "--workers", "2"]
ENVIRONMENT = os.environ | {"RRPO_CHECKPOINT_SECONDS": "0", "COLUMNS": "200"}
ROUNDS = 30


def start(runs: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [*TINY, "--runs-dir", str(runs), *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def results(runs: Path) -> dict[str, str]:
    """Return the hash of every file of every stage, without durations."""
    results = {}
    for path in sorted((runs / "stages").glob("*/**/*")):
        if path.is_file() and path.name != MARKER:
            results[path.relative_to(runs / "stages").as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return results


def complete(runs: Path, grid: str = "tiny") -> Counter[str]:
    """Return the number of complete records in MLflow by cell."""
    store = Store(check(runs))
    found_runs = store.client.search_runs([store.experiment_id(grid)], "tags.kind = 'cell'", max_results=5000)
    return Counter(run.data.tags["cell_hash"] for run in found_runs if records.TAG_COMPLETE in run.data.tags)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_thirty_kills_at_random_points_change_no_bit(tmp_path: Path) -> None:
    """Kill one worker, the parent, or everything at random times (SIGKILL), and repeat the same command each time."""
    calm, storm = tmp_path / "calm", tmp_path / "storm"
    with start(calm) as process:
        text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    dice = random.Random(4)
    killed = Counter[str]()
    finished = 0
    while sum(killed.values()) < ROUNDS:
        process = start(storm)
        time.sleep(dice.uniform(2.0, 10.0))
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):  # it has just ended
            family = psutil.Process(process.pid).children(recursive=True)
        victim = dice.choice(["worker", "parent", "everything"])
        if victim == "worker" and family:
            with suppress(psutil.NoSuchProcess):
                dice.choice(family).kill()
            time.sleep(dice.uniform(0.0, 3.0))
        for member in family if victim == "everything" else []:  # before their parent, with which they would end
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.kill()
        process.communicate()
        killed[victim] += process.returncode != 0
        if process.returncode == 0:  # finished before the kill: compare, and start another round
            assert set(complete(storm).values()) == {1}
            assert results(storm) == results(calm)
            shutil.rmtree(storm)
            finished += 1
    with start(storm) as process:
        text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    assert "All 2 cells are done." in text
    assert set(complete(storm).values()) == {1}, "no cell lost, none recorded twice"
    assert results(storm) == results(calm)
    assert min(killed[victim] for victim in ("worker", "parent", "everything")) > 0
    print(f"kills: {dict(killed)}; grids that finished on the way: {finished}")


def test_a_run_killed_whole_goes_on_where_it_was(runs: Path, run: Run, tmp_path: Path) -> None:
    """The quick form of the previous test: one SIGKILL of the parent and all workers, with fake stages."""
    trouble = tmp_path / "trouble"
    trouble.write_text("slow")
    script = tmp_path / "script.py"
    script.write_text(RACE)
    command = [sys.executable, str(script), str(HERE), str(runs), str(trouble), "3"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    wait_until_started(process, trouble)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    psutil.wait_procs(family, timeout=120)
    zombie = psutil.STATUS_ZOMBIE  # nobody may be there to reap it
    assert all(not member.is_running() or member.status() == zombie for member in family), "workers die with the parent"
    built = fakes.built(runs)
    trouble.unlink()
    outcome, text = run(fakes.cells(["diffro", "rrpo"], [1, 2, 3], {"rrpo/3": trouble}), workers=2)
    assert outcome.status == 0, text
    after = fakes.built(runs)
    assert after[: len(built)] == built
    assert len(set(after)) == len(after) == 1 + 3 + 3 * 6
    assert set(complete(runs).values()) == {1}


RACE = """
import sys
sys.path.insert(0, sys.argv[1])
import fakes
from pathlib import Path
from ablations import run
from ablations.grids import GRIDS, Grid
if __name__ == "__main__":
    trouble = {f"rrpo/{sys.argv[4]}": Path(sys.argv[3])}
    cells = lambda profile, seeds: fakes.cells(["diffro", "rrpo"], seeds, trouble)
    GRIDS.register("tiny", Grid(cells=cells, seeds=1, first_seed=1))
    sys.argv = ["ablations.run", "--grid", "tiny", "--workers", "1", "--seeds", sys.argv[4], "--runs-dir", sys.argv[2]]
    run.main()
"""


@pytest.mark.parametrize("seeds", [3, pytest.param(25, marks=pytest.mark.long)])
def test_two_runners_share_the_work_and_run_each_cell_once(runs: Path, tmp_path: Path, seeds: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(RACE)
    command = [sys.executable, str(script), str(HERE), str(runs), str(tmp_path / "no trouble"), str(seeds)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    texts = [racer.communicate(timeout=280)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], texts
    assert all(f"All {2 * seeds} cells are done." in text for text in texts)
    built = fakes.built(runs)
    assert len(built) == len(set(built)) == 1 + seeds + 3 * 2 * seeds, "each stage once"
    counts = complete(runs)
    assert len(counts) == 2 * seeds
    assert set(counts.values()) == {1}, "each cell recorded once"
    assert not list((runs / "claims").iterdir())


def test_a_diverged_cell_is_counted_and_kept_back(runs: Path, run: Run, tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.write_text("diverge")
    cells = fakes.cells(["diffro", "rrpo"], [1], {"rrpo/1": trouble})
    outcome, _ = run(cells)
    assert (outcome.status, outcome.done) == (1, 1)
    assert "diverged: " in outcome.failures["rrpo/1"]
    lost = Store(check(runs)).states("tiny")[1]
    assert [why.kind for why in lost.values()] == ["diverged"]
    trouble.unlink()
    outcome, _ = run(cells)
    assert (outcome.status, outcome.done) == (1, 1), "the same seed would diverge again"
    outcome, _ = run(cells, retry_failed=True)
    assert (outcome.status, outcome.done) == (0, 2)


def test_a_claim_of_a_dead_process_stops_nobody_and_of_a_live_one_is_shown(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = fakes.cells(["diffro", "rrpo"], [1])
    names = [cell.stages["optimized"].path(runs).name for cell in cells]
    owner = this_process()
    dead = Owner(host=owner.host, pid=owner.pid, started="1", name=owner.name)
    assert Claims(runs / "claims", owner=dead).take(names[0])
    live = Claims(runs / "claims").take(names[1])
    assert live is not None

    class Shown(StringIO):
        def write(self, text: str) -> int:
            if "elsewhere" in text:
                live.release()
            return super().write(text)

    monkeypatch.setattr(fixtures, "StringIO", Shown)
    outcome, text = run(cells)
    assert (outcome.status, outcome.done) == (0, 2)
    assert text.count("elsewhere") == 1
    assert f"elsewhere: ClaimedError: optimise rrpo/1 is being built by process {os.getpid()} on " in text


def test_status_shows_every_cell(runs: Path, run: Run, tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.write_text("raise")
    run(fakes.cells(["diffro", "rrpo"], [1], {"rrpo/1": trouble}))
    cells = fakes.cells(["diffro", "rrpo"], [1, 2], {"rrpo/1": trouble})
    folder = check(runs)
    from ablations.execution.planned import write_plan

    write_plan(folder, "tiny", cells)
    name = cells[3].stages["optimized"].path(runs).name
    assert Claims(folder.claims).take(name)
    (folder.root / "progress").mkdir(exist_ok=True)
    (folder.root / "progress" / f"{name}.json").write_text(json.dumps([40, 140, time.time() - 300]))
    rows = status.status(Store(folder), "tiny")
    assert [row.cell for row in rows] == [cell.name for cell in cells]
    assert rows[0].state == "done"
    assert rows[1].state == "failed, bug: optimise rrpo/1: RuntimeError: planted failure"
    assert Path(rows[1].log).read_text()
    assert rows[2].state == "waiting"
    assert (rows[3].state, rows[3].step, rows[3].age) == ("at work", "optimize 40 of 140", "5 min")
    assert f"process {os.getpid()}" in rows[3].owner
    assert len(read_plan(folder, "tiny")) == 4
    shown = CliRunner().invoke(status.app, ["--runs-dir", str(runs)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "1 done, 1 failed, 1 waiting, 1 at work" in shown.output
    for arguments in (["--runs-dir", str(tmp_path / "none")], ["--runs-dir", str(runs), "--grid", "nosuch"]):
        refused = CliRunner().invoke(status.app, arguments)
        assert refused.exit_code == 2
        assert "fix:" in refused.output


def mounted(folder: Path, size: str) -> bool:
    folder.mkdir()
    completed = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    return completed.returncode == 0


@pytest.mark.long
def test_a_disk_that_is_too_small_pauses_and_room_lets_it_go_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not mounted(disk, "64m"):
        pytest.skip("no right to mount a tmpfs here")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(2**23))  # room to free, even if the run itself fills the disk
        process = start(disk / "runs")
        deadline = time.monotonic() + 120
        while not list((disk / "runs" / "stages").glob("speech-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        with (
            ballast.open("ab", buffering=0) as file,
            suppress(OSError),
        ):  # nothing is left to be written when it is closed
            while True:
                file.write(bytes(2**16))
        text = ""
        assert process.stdout is not None
        while "PAUSED" not in text:
            line = process.stdout.readline()
            assert line, f"it ended instead of pausing: {text}"
            text += line
        time.sleep(3)
        assert process.poll() is None
        ballast.unlink()
        rest, _ = process.communicate(timeout=280)
        assert process.returncode == 0, text + rest
        assert "there is room again" in text + rest
        assert set(complete(disk / "runs").values()) == {1}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_two_interrupts_end_a_run_at_once(runs: Path, tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.write_text("deaf")
    script = tmp_path / "script.py"
    script.write_text(RACE)
    command = [sys.executable, str(script), str(HERE), str(runs), str(trouble), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_until_started(process, trouble)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        while "Ctrl-C again" not in (line := process.stdout.readline()):
            assert line
        time.sleep(1)
        assert process.poll() is None, "the first signal waits for a checkpoint"
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=280)
    assert process.returncode == 130, text
    assert "run the same command again to resume" in text

"""The command line: plan, invalid input, exit statuses. Refused commands write nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner, Result

from ablations.execution import environment, launchers
from ablations.execution.options import Options
from ablations.execution.request import request
from ablations.execution.runner import Ending
from ablations.grids import GRIDS, Grid
from ablations.run import app, report
from ablations.tracking.invocations import planned_seeds
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from rrpo.pipeline.stages import MARKER


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def grid(profile: object, seeds: range) -> list:
        return fakes.cells(["sft", "rrpo"], seeds)

    monkeypatch.setitem(GRIDS._items, "tiny", Grid(cells=grid, profile="smoke", seeds=1, first_seed=1))  # type: ignore[arg-type]


def call(*arguments: str, runs: Path) -> Result:
    return CliRunner().invoke(app, ["--runs-dir", str(runs), *arguments], env={"COLUMNS": "200"})


def files(folder: Path) -> set[str]:
    return {
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".lock")
    }


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the modification time and the content of every file."""
    return {name: ((folder / name).stat().st_mtime_ns, (folder / name).read_bytes()) for name in files(folder)}


def test_plan_names_cells_stages_and_time_and_writes_nothing(tmp_path: Path):
    result = call("--grid", "tiny", "--plan", runs=tmp_path / "runs")
    assert result.exit_code == 0
    assert "2 arms, 1 seeds, 2 cells, 0 done, 2 to run" in result.output
    assert "rrpo/1" in result.output
    kinds = re.findall(r"^ +(\d+) x (\w+) +\S", result.output, re.M)
    assert kinds == [("1", "codec"), ("2", "examine"), ("1", "sft"), ("2", "optimize"), ("2", "score")]
    assert "2 x optimize          policy: optimization" in result.output
    assert "by the times of another size" in result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (None, ["the grid has no cells", "got: tiny"]),
        (["sft", "rrpo", "rrpo"], ["grid tiny has several cells of one arm and seed", "got: rrpo/1"]),
        (["sft", "lr=.1,beta=2"], ["grid tiny has a label that cannot be stored", "got: 'lr=.1,beta=2'"]),
        (["sft", "rrpo@a@b"], ["grid tiny has a label that cannot be stored", "got: 'rrpo@a@b'"]),
    ],
)
def test_a_grid_of_cells_that_cannot_be_told_apart_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: list[str] | None, words: list[str]
):
    made = None if cells is None else [cell for name in cells for cell in fakes.cells([name], [1])]
    monkeypatch.setitem(GRIDS._items, "tiny", Grid(cells=lambda profile, seeds: made, profile="smoke"))  # type: ignore
    result = call("--grid", "tiny", runs=tmp_path / "runs")
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.output
    assert not (tmp_path / "runs").exists()


def test_run_then_plan_says_done(runs: Path):
    result = call("--grid", "tiny", "--workers", "1", runs=runs)
    assert result.exit_code == 0, result.output
    assert "All 2 cells are done." in result.output
    assert "Result" in result.output
    assert f"mlflow ui --backend-store-uri sqlite:///{runs}/mlflow.db" in result.output.replace("\n", "")
    before = contents(runs)
    result = call("--grid", "tiny", "--plan", "--seeds", "2", runs=runs)
    assert "2 done, 2 to run" in result.output
    assert "time on " in result.output
    assert "not built here" not in result.output
    assert contents(runs) == before


def test_json_lines_hold_every_event_and_the_table(runs: Path):
    result = call("--grid", "tiny", "--workers", "1", "--json", runs=runs)
    assert result.exit_code == 0, result.output
    events = [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["plan", "end"]
    finished = [event for event in events if event["event"] == "finished"]
    assert {"optimise rrpo/1", "rrpo/1", "sft/1"} <= {event["task"] for event in finished}
    assert [finished[-1]["done"], finished[-1]["of"]] == [2, 2]
    end = events[-1]
    assert [end["status"], end["done"], end["cells"], end["failures"]] == [0, 2, 2, {}]
    rows = {row["arm"]: row for row in end["table"]}
    assert rows.keys() == {"sft", "rrpo"}
    assert rows["rrpo"]["gold"].keys() == {"mean", "low", "high", "n"}
    assert rows["rrpo"]["gold"]["low"] is None, "one seed has no interval"


def test_quiet_says_the_end_alone(runs: Path):
    result = call("--grid", "tiny", "--workers", "1", "--quiet", runs=runs)
    assert result.exit_code == 0, result.output
    assert "All 2 cells are done." in result.output
    assert not any(words in result.output for words in ("built", "Result", "to run"))


def test_a_seed_is_continued_with_the_executor_it_was_begun_with(runs: Path):
    sft, _ = fakes.cells(["sft", "rrpo"], [1])
    folder = sft.stages["optimized"].path(runs)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text(json.dumps({"executor": "stacked(2)", "device": "cpu", "seconds": 1.0}))
    result = call("--grid", "tiny", "--plan", runs=runs)
    assert result.exit_code == 2, result.output
    assert "seed 1 was begun with another executor" in result.output
    assert call("--grid", "tiny", "--plan", "--stack", "2", runs=runs).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "nosuch"], ["no grid of that name", "nosuch", "full"]),
        (["--grid", "tiny", "--arms", "rrpo,nosuch"], ["no arm in grid tiny", "nosuch", "sft, rrpo"]),
        (["--grid", "tiny", "--arms", ""], ["no arm in grid tiny"]),
        (["--grid", "tiny", "--profile", "huge"], ["no profile of that name", "huge", "embedded"]),
        (["--grid", "tiny", "--device", "tpu"], ["no device of that name", "tpu", "cuda"]),
        (["--grid", "tiny", "--seeds", "0"], ["--seeds must be positive", "0"]),
        (["--grid", "tiny", "--seeds", "-3"], ["--seeds must be positive", "-3"]),
        (["--grid", "tiny", "--workers", "0"], ["--workers must be positive"]),
        (["--grid", "tiny", "--batch-scale", "0"], ["--batch-scale must be positive"]),
        (["--grid", "tiny", "--first-seed", "-1"], ["--first-seed must not be negative"]),
        (["--grid", "tiny", "--world", "-1"], ["--world must not be negative"]),
        (["--grid", "tiny", "--world", "one"], ["--world"]),
        (["--grid", "tiny", "--seeds", "two"], ["--seeds"]),
        (["--grid", "tiny", "--manifest", "nosuch=x.jsonl"], ["no split for --manifest", "nosuch", "annotated"]),
        (["--grid", "tiny", "--manifest", "annotated"], ["--manifest takes SPLIT=PATH"]),
        (["--grid", "tiny", "--manifest", "annotated=x.jsonl"], ["x.jsonl: no such manifest"]),
        (
            ["--grid", "tiny", *2 * ["--manifest", "rl=x.jsonl"]],
            ["--manifest is given twice for rl", "rl=x.jsonl and rl=x.jsonl"],
        ),
        (["--grid", "tiny", "--launcher", "cloud"], ["no launcher of that name", "cloud", "local, ray, slurm"]),
        (["--grid", "tiny", "--address", "head:6379"], ["--address is only for Ray", "--launcher local"]),
        (["--grid", "tiny", "--slurm", "time=5"], ["--slurm is only for Slurm", "--launcher local"]),
        (["--grid", "tiny", "--cpus-per-task", "0"], ["--cpus-per-task must be positive"]),
        (["--grid", "tiny", "--cpus-per-task", "4"], ["are for tasks on Ray and Slurm", "--launcher local"]),
        (["--grid", "tiny", "--retry", "all"], ["no set of cells to --retry", "all", "failed"]),
        (["--grid", "tiny", "--gpus-per-task", "-1"], ["--gpus-per-task must not be negative"]),
        (
            ["--grid", "tiny", "--device", "cpu", "--gpus-per-task", "0.25"],
            ["would run on the CPU", "add --device cuda"],
        ),
        (["--grid", "tiny", "--shard", "0/2"], ["--shard takes I/N", "0/2"]),
        (["--grid", "tiny", "--shard", "3/2"], ["--shard takes I/N", "3/2"]),
        (["--grid", "tiny", "--shard", "9/9"], ["the shard holds no cell", "9/9 of 2 cells"]),
        (["--grid", "tiny", "--shard", "half"], ["--shard takes I/N", "half"]),
        ([], ["--grid"]),
    ],
)
def test_bad_options_get_one_message_and_status_2(tmp_path: Path, arguments: list[str], words: list[str]):
    result = call(*arguments, runs=tmp_path / "runs")
    assert result.exit_code == 2
    for word in words:
        assert word in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs").exists()


def test_what_becomes_of_failures_is_asked_for(tmp_path: Path):
    def asked(**options: Any) -> tuple[bool, bool]:
        made = request(Options(grid="tiny", runs_dir=tmp_path / "runs", **options))
        return made.retry_failed, made.fail_fast

    assert asked() == (False, False)
    assert asked(retry="failed") == (True, False)
    assert asked(fail_fast=True) == (False, True)


@pytest.mark.parametrize("seconds", ["30s", "-1", "nan"])
def test_checkpoints_at_no_number_of_seconds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str):
    monkeypatch.setenv("RRPO_CHECKPOINT_SECONDS", seconds)
    result = call("--grid", "tiny", runs=tmp_path / "runs")
    assert result.exit_code == 2
    assert "RRPO_CHECKPOINT_SECONDS is a number of seconds" in result.output


def test_an_added_arm_has_a_policy_only_if_the_grids_own_have_one(tmp_path: Path):
    def made(grid: str) -> set[bool]:
        return {cell.policy for cell in request(Options(grid=grid, arms="diffro,soft_votes", runs_dir=tmp_path)).cells}

    assert (made("rm"), made("loo")) == ({False}, {True})


def test_prompts_by_a_voice_that_the_policy_never_learns_are_refused(tmp_path: Path):
    line = {"text": "我今天买书", "speaker": "li", "language": "cmn", "emotion": "sad"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line))
    result = call("--grid", "tiny", "--manifest", f"rl={tmp_path / 'mine.jsonl'}", runs=tmp_path / "runs")
    assert result.exit_code == 2
    assert "the split 'rl' has the speaker 'li', which the policy never learns" in result.output
    assert not (tmp_path / "runs").exists()


def test_one_corpus_for_a_judge_and_for_what_it_judges_is_refused(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16000) / 10), 16000)
    line = {"audio": "a.wav", "text": "我今天买书", "speaker": "li", "language": "cmn", "emotion": "sad"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line))
    corpus = tmp_path / "mine.jsonl"
    both = ("--manifest", f"annotated={corpus}", "--manifest", f"judge_test={corpus}")
    result = call("--grid", "tiny", *both, runs=tmp_path / "runs")
    assert result.exit_code == 2
    assert "'judge_test' (the test judges) sounds the same" in result.output
    assert "correct the manifest or the file it names; nothing was written" in result.output
    assert not (tmp_path / "runs").exists()


def test_cuda_without_a_gpu_is_refused_and_auto_takes_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "_no_gpu", lambda: "no NVIDIA driver")
    result = call("--grid", "tiny", "--device", "cuda", runs=tmp_path / "runs")
    assert result.exit_code == 2
    assert "no GPU to run on" in result.output
    assert "no NVIDIA driver" in result.output
    assert environment.resolve_device("auto") == "cpu"
    monkeypatch.setattr(environment, "_no_gpu", lambda: "")
    assert environment.resolve_device("auto") == environment.resolve_device("cuda") == "cuda"


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_launcher_without_its_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, package
):
    monkeypatch.setitem(launchers.PACKAGES, name, f"{package}_that_nobody_has")
    result = call("--grid", "tiny", "--launcher", name, runs=tmp_path / "runs")
    assert result.exit_code == 2
    assert f"needs the package {package}" in result.output
    assert f"pip install 'rrpo-ablations[{name}]'" in result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("option", "words"), [("nosuch=1", "nosuch"), ("partition", "NAME=VALUE")])
def test_options_that_sbatch_does_not_have_are_refused(tmp_path: Path, option: str, words: str):
    pytest.importorskip("submitit")
    result = call("--grid", "tiny", "--launcher", "slurm", "--slurm", option, runs=tmp_path / "runs")
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "runs").exists()


def test_where_tasks_run_elsewhere_this_machine_needs_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "_no_gpu", lambda: "no NVIDIA driver")
    assert environment.resolve_device("cuda", elsewhere=True) == "cuda"
    assert environment.resolve_device("auto", elsewhere=True) == "cpu"


def test_shards_share_a_grid_and_plan_all_of_it(runs: Path):
    result = call("--grid", "tiny", "--seeds", "2", "--workers", "1", "--shard", "2/3", runs=runs)
    assert "4 cells, 0 done, 1 to run in shard 2/3" in result.output
    assert "All 1 cells are done." in result.output
    store = Store(check(runs))
    assert [(r.label, r.seed) for r in store.records("tiny")] == [("rrpo", 1)]
    assert planned_seeds(store.plans("tiny")) == [2], "the whole grid's seeds are planned"
    result = call("--grid", "tiny", "--seeds", "2", "--workers", "1", "--shard", "1/3", runs=runs)
    assert "4 cells, 1 done, 2 to run in shard 1/3" in result.output
    result = call("--grid", "tiny", "--seeds", "2", "--plan", runs=runs)
    assert "3 done, 1 to run" in result.output


@pytest.mark.parametrize(("stopped", "end"), [(True, "Stopped. 2 of 4"), (False, "Open it: mlflow ui")])
def test_failures_are_told_whether_or_not_the_run_was_stopped(stopped: bool, end: str):
    outcome = Ending(4, 2, {"rrpo/1": "bug: planted failure"}, stopped, None, "mlflow ui")
    with (console := Console(width=200)).capture() as shown:
        report(outcome, console)
    first, second, third, *_ = shown.get().splitlines()
    assert (first, second) == ("1 of 4 cells failed:", "  rrpo/1: bug: planted failure")
    assert third.startswith(end)


@pytest.mark.parametrize("command", [["--grid", "tiny"], ["--grid", "tiny", "--plan"]])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path, command: list[str]):
    (tmp_path / "thesis.tex").write_text("mine")
    result = call(*command, runs=tmp_path)
    assert result.exit_code == 2
    assert "not a run's" in result.output
    assert files(tmp_path) == {"thesis.tex"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "runs").write_text("mine")
    for path in (tmp_path / "runs", tmp_path / "runs" / "below"):
        result = call("--grid", "tiny", runs=path)
        assert result.exit_code == 2, result.output
        assert "fix:" in result.output


@pytest.mark.parametrize("damage", ["rrpo-runs.json", "mlflow.db"])
def test_a_damaged_folder_is_refused(runs: Path, damage: str):
    (runs / damage).write_text("not what it was")
    result = call("--grid", "tiny", runs=runs)
    assert result.exit_code == 2, result.output
    assert damage in result.output
    assert (runs / damage).read_text() == "not what it was"


def test_another_format_is_refused(runs: Path):
    (runs / "rrpo-runs.json").write_text('{"format": 99, "root": "/"}')
    result = call("--grid", "tiny", runs=runs)
    assert result.exit_code == 2
    assert "another format" in result.output
    assert "99" in result.output


def test_a_folder_whose_creation_was_cut_off_can_be_used(runs: Path):
    (runs / "rrpo-runs.json").unlink()
    assert call("--grid", "tiny", "--plan", runs=runs).exit_code == 0
    assert call("--grid", "tiny", "--workers", "1", runs=runs).exit_code == 0


def test_arms_can_be_chosen(runs: Path):
    result = call("--grid", "tiny", "--arms", "rrpo", "--plan", runs=runs)
    assert "1 arms, 1 seeds, 1 cells" in result.output

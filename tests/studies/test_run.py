"""Real searches on one smoke world: killed workers and commands, commands that share a study, MLflow, the whole report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import optuna
import psutil
import pytest
from rich.console import Console
from searches import filled, search
from test_mlflow_bridge import add
from test_options import command

from ablations.execution.options import Options
from ablations.execution.request import request
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from rrpo.experiment import world
from rrpo.profiles import SMOKE
from studies import fresh, opening
from studies import run as searches
from studies.recovery import OWNER, RETRY, claim, lost_trials
from studies.search import OUTCOMES
from studies.storage import open_storage

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One runs folder for all: the world is built once."""
    return tmp_path_factory.mktemp("studies") / "runs"


def start(runs: Path, *arguments: str) -> subprocess.Popen[str]:
    """A search of two seeds and two workers that is not verified, in a session of its own."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "studies.run",
        "--profile",
        "smoke",
        "--device",
        "cpu",
        "--seeds",
        "2",
    ]
    command += ["--workers", "2", "--verify", "0", "--runs-dir", str(runs), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, output
    return output


def until(true: Callable[[], object], seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def opened(runs: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=open_storage(None, runs / "studies" / name))


def running(runs: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    """Claimed trials that run."""
    if not (runs / "studies" / name / "journal.log").is_file():
        return []
    try:
        trials = opened(runs, name).trials
    except KeyError:
        return []
    return [t for t in trials if t.state.name == "RUNNING" and OWNER in t.user_attrs]


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def check_mlflow(runs: Path, study: optuna.Study) -> None:
    """One run a study, one a finished trial, each knows the other's number."""
    store = Store(check(runs))
    number = store.experiment_id(f"study {study.study_name}")
    (parent,) = store.client.search_runs([number], "tags.kind = 'study'")
    children = store.client.search_runs([number], "tags.kind = 'trial'")
    assert parent.info.status == "FINISHED"
    by_trial = {int(run.data.tags["optuna_trial"]): run for run in children}
    assert len(by_trial) == len(children), "no trial twice"
    assert sorted(by_trial) == [t.number for t in study.trials if t.state.is_finished()]
    for number, run in by_trial.items():
        trial = study.trials[number]
        assert study.user_attrs[f"mlflow_run_{number}"] == run.data.tags["entry"]
        assert {"git_sha", "arm_hash", "sampler"} <= run.data.tags.keys()
        if trial.state.name == "COMPLETE":
            assert run.info.status == "FINISHED"
            assert run.data.params.keys() == trial.params.keys()
            for cell in ("cell 1000", "cell 1001"):
                assert all((runs / "stages" / name).is_dir() for name in run.data.tags[cell].split())


def test_the_end_of_a_search_tells_which_check_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trials and fresh seeds are given; a resumed study with a new winner makes the second check."""
    seeds = range(2000, 2004)
    outcomes = [{seed: {"clean_success": gain + 0.001 * (seed % 3)} for seed in seeds} for gain in (0.1, 0.0)]
    monkeypatch.setattr(fresh, "evaluate", lambda *_: fresh.Fresh(*outcomes))
    base = command(tmp_path, verify=4)
    study = opening.opened(base)
    for trials in (1, 2):
        gain = 0.05 + 0.1 * trials
        trial_outcomes = {"clean_success": gain, "kl_token": 1.0}
        add(study, base, gain, **{OUTCOMES: {"1000": trial_outcomes, "1001": trial_outcomes}})
        checked_command = replace(base, trials=trials, export_arm=f"tuned_{trials}")
        text = StringIO()
        assert searches.run(checked_command, study, Console(file=text, width=200)) == 0
        output = text.getvalue()
        assert f"(check {trials} of this study)" in output
        stored = json.loads((tmp_path / "runs" / "arms" / f"tuned_{trials}.json").read_text())
        assert f"(check {trials} of this study)" in stored["provenance"]["fresh_seeds"]


def test_an_incomplete_check_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    searched = search(tmp_path, "clean_success")
    study = filled(searched, 2)

    def checks(seeds: range, missing: str) -> list[list[int]]:
        outcomes = {seed: {"clean_success": 0.5} for seed in seeds}
        monkeypatch.setattr(fresh, "evaluate", lambda *_: fresh.Fresh(outcomes, outcomes, missing=missing))
        _, failed = fresh.check(searched, study, Console(file=StringIO()))
        assert failed == bool(missing)
        return [entry["seeds"] for entry in study.user_attrs.get(fresh.CHECKS, [])]

    assert checks(range(2000, 2003), "RM fine-tuning seed 2003: diverged") == []
    assert checks(range(2000, 2004), "") == [[2000, 2001, 2002, 2003]]


def test_a_check_that_cannot_be_made_yet_is_put_off_and_said(tmp_path: Path):
    checked = command(tmp_path, study="tune-arm", arm="rrpo", trials=1)
    study = opening.opened(checked)
    outcomes = {"clean_success": 0.3, "kl_token": 1.0}
    params, space = dict(checked.definition.paper) | {"lr": 2e-3}, dict(checked.definition.space)
    attrs = {OUTCOMES: {"1000": outcomes, "1001": outcomes}}
    study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=0.3, user_attrs=attrs))
    text = StringIO()
    (checked.folder / "report").mkdir(parents=True)
    (checked.folder / "report" / "fresh.md").write_text("the verdict on an earlier winner")
    assert searches.run(checked, study, Console(file=text, width=200)) == 0
    assert not (checked.folder / "report" / "fresh.md").exists()
    assert (
        "Not checked on fresh seeds; run the same command later to do it: there is no study of that name"
        in text.getvalue()
    )
    assert "got: tune-diffro-smoke" in text.getvalue()


def test_a_search_that_another_command_still_runs_is_neither_compared_nor_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fresh, "check", lambda *_: pytest.fail("it was compared"))
    checked = command(tmp_path, trials=2, verify=4, export_arm="tuned")
    study = opening.opened(checked)
    outcomes = {"clean_success": 0.3, "kl_token": 1.0}
    add(study, checked, 0.3, **{OUTCOMES: {"1000": outcomes, "1001": outcomes}})
    claim(study.ask(dict(checked.definition.space)))
    text = StringIO()
    assert searches.run(checked, study, Console(file=text, width=200)) == 1
    assert "1 of 2 trials are finished; run the same command again for the rest" in text.getvalue()
    assert not (tmp_path / "runs" / "arms").exists()
    assert (checked.folder / "report" / "trials.csv").is_file()


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_killed_worker_costs_its_trial_which_is_run_again_and_a_killed_command_is_resumed(runs: Path):
    """SIGKILL to one worker, then to a whole command, then two commands at once finish the study."""
    name = "rm-smoke"
    first = start(runs, "--study", "rm", "--trials", "4")
    until(lambda: running(runs, name))
    victim = running(runs, name)[0]
    os.kill(victim.user_attrs[OWNER]["pid"], signal.SIGKILL)
    output = finish(first)
    assert re.search(r"killed: trial: worker process died: killed by SIGKILL", output)
    study = opened(runs, name)
    assert [t.state.name for t in study.trials].count("COMPLETE") == 4
    assert lost_trials(study.trials) == {victim.number}
    (again,) = (t for t in study.trials if t.user_attrs.get(RETRY) == victim.number)
    assert (again.state.name, again.params) == ("COMPLETE", victim.params)
    check_mlflow(runs, study)

    second = start(runs, "--study", "rm", "--trials", "8")
    until(lambda: running(runs, name))
    lost = running(runs, name)
    pids = [process.pid for process in psutil.Process(second.pid).children(recursive=True)]
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()
    until(lambda: all(map(has_ended, pids)), 60)

    for process in [start(runs, "--study", "rm", "--trials", "8") for _ in range(2)]:
        finish(process)
    study = opened(runs, name)
    assert [t.state.name for t in study.trials].count("COMPLETE") == 8, "not one too many"
    assert {t.number for t in lost} <= lost_trials(study.trials)
    assert study.trials[0].user_attrs["sampler"] == "given"
    check_mlflow(runs, study)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_whole_study_with_the_policy_and_its_winner_in_a_grid(runs: Path):
    """Three objectives, warm-started, verified, exported; the test judge never; the same command again builds nothing."""
    finish(start(runs, "--study", "rm", "--trials", "4"))
    arguments = (
        "--study",
        "regularizers",
        "--trials",
        "8",
        "--objectives",
        "clean_success,hacked_share,phone_error_rate",
    )
    arguments += ("--sampler", "qmc", "--warm-start", "rm-smoke", "--verify", "2", "--export-arm", "tuned")
    output = finish(start(runs, *arguments))
    assert "note: several objectives: no pruning" in output
    assert re.search(r"trial 8 of 8 done: number \d+: clean_success", output)
    assert re.search(r"left: .* front of \d", output)
    study = opened(runs, "regularizers-smoke")
    check_mlflow(runs, study)
    stages = [path.name for path in (runs / "stages").iterdir()]
    assert not any(stage.startswith("score-") for stage in stages)
    assert world.judge(SMOKE, "test").path(runs).name not in stages
    assert {t.user_attrs["sampler"] for t in study.trials} == {"given", "qmc"}
    report = runs / "studies" / "regularizers-smoke" / "report"
    assert {path.stem for path in report.glob("*.csv")} >= {"best", "trials"}
    figures = {"history", "pareto", "slice"}
    assert {path.stem for path in report.glob("*.png")} >= figures
    stored = json.loads((runs / "arms" / "tuned.json").read_text())
    assert stored["provenance"]["study"] == "regularizers-smoke"
    checked = request(Options(grid="full", profile="smoke", seeds=1, arms="diffro,tuned", runs_dir=runs))
    assert [cell.label for cell in checked.cells] == ["diffro", "tuned"]
    before = {path.name: path.stat().st_mtime for path in (runs / "stages").iterdir()}
    finish(start(runs, *arguments))
    assert {path.name: path.stat().st_mtime for path in (runs / "stages").iterdir()} == before, "nothing is built twice"


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_the_policys_study_trains_no_reward_model_twice(runs: Path):
    def built() -> Counter[str]:
        folder = runs / "stages"
        return (
            Counter(path.name.split("-")[0] for path in folder.iterdir() if path.is_dir())
            if folder.is_dir()
            else Counter()
        )

    before = built()
    finish(start(runs, "--study", "policy", "--trials", "3", "--pruner", "none"))
    new = built() - before
    assert new["finetune"] <= 2, "of rrpo, two seeds"
    assert 3 * 2 - 2 <= new["optimize"] <= 2 + 3 * 2, "the SFT policy's own beside those of the trials"


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_trials_run_on_ray(runs: Path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install ray")
    finish(start(runs, "--study", "rm", "--trials", "3", "--name", "onray", "--launcher", "ray"))
    study = opened(runs, "onray")
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3
    check_mlflow(runs, study)

"""The bridge to MLflow: one run a study, one a finished trial whoever writes, whole or not at all; and Optuna's own dashboard."""

from __future__ import annotations

import importlib.util
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from browser import BROWSER, FLAGS
from optuna.trial import TrialState, create_trial
from test_options import command

from ablations.tracking import replay
from ablations.tracking.reader import Store
from studies import opening
from studies.mlflow_bridge import Bridge
from studies.recovery import RETRY
from studies.samplers import SAMPLER
from studies.search import OUTCOMES, REASON, STAGES, Search


def bridge(checked: Search, study: optuna.Study) -> Bridge:
    return Bridge(checked, study, {"git_sha": "abc", "dirty": "false"})


def add(study: optuna.Study, checked: Search, gain: float, **attrs: object) -> None:
    space, paper = dict(checked.definition.space), dict(checked.definition.paper)
    params = paper | {"epsilon": gain}
    outcomes: dict[str, object] = {
        OUTCOMES: {"1000": {"clean_success": gain}, "1001": {"clean_success": gain}},
        STAGES: {"1000": ["finetune-a", "optimize-b"], "1001": ["finetune-c", "optimize-d"]},
        SAMPLER: "tpe",
    }
    study.add_trial(create_trial(params=params, distributions=space, value=gain, user_attrs=outcomes | attrs))


def runs(checked: Search, kind: str) -> list:
    store = Store(checked.runs)
    number = store.experiment_id(f"study {checked.name}")
    return store.client.search_runs([number], f"tags.kind = '{kind}'", order_by=["attributes.start_time ASC"])


def test_a_study_is_one_run_and_each_trial_another_both_ways_linked(tmp_path: Path):
    checked = command(tmp_path)
    study = opening.opened(checked)
    add(study, checked, 0.1)
    add(study, checked, 0.2)
    writer = bridge(checked, study)
    writer.write()
    report = tmp_path / "report"
    report.mkdir()
    (report / "study.html").write_text("a page")
    writer.write("FINISHED", {"fresh difference": 0.03}, report)
    (parent,) = runs(checked, "study")
    assert parent.data.metrics["best clean_success"] == 0.2
    assert parent.data.metrics["fresh difference"] == 0.03
    assert parent.data.params["seeds"] == "[1000, 1001]"
    children = {run.data.tags["optuna_trial"]: run for run in runs(checked, "trial")}
    assert children.keys() == {"1", "2"}, "the one that waits has none"
    run = children["2"]
    assert [page.read_text() for page in checked.runs.artifacts.rglob("report/study.html")] == ["a page"]
    assert parent.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in run.data.tags, "MLflow hides what is nested"
    assert study.user_attrs["mlflow_run_2"] == run.data.tags["entry"]
    assert run.data.tags["cell 1000"] == "finetune-a optimize-b"
    values = {"clean_success": 0.2, "seed 1000/clean_success": 0.2, "seed 1001/clean_success": 0.2}
    assert {name: value for name, value in run.data.metrics.items() if name != "seconds"} == values
    assert float(run.data.params["epsilon"]) == 0.2
    assert run.data.tags["git_sha"] == "abc"
    ended = study.trials[2].datetime_complete
    assert ended is not None
    assert run.info.end_time == int(ended.timestamp() * 1000)


def test_a_resumed_study_and_two_commands_at_once_write_every_trial_once(tmp_path: Path):
    checked = command(tmp_path)
    study = opening.opened(checked)
    first, second = bridge(checked, study), bridge(checked, study)
    add(study, checked, 0.1)
    first.write()
    second.write()
    add(study, checked, 0.2)
    second.write()
    first.write()
    bridge(checked, study).write()
    assert len(runs(checked, "study")) == 1
    assert Store(checked.runs).grids() == [], "a study is no grid"
    assert sorted(run.data.tags["optuna_trial"] for run in runs(checked, "trial")) == ["1", "2"]


def test_a_trial_is_written_once_though_its_writer_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checked = command(tmp_path)
    study = opening.opened(checked)
    add(study, checked, 0.1)
    writer = bridge(checked, study)

    def cut(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "set_user_attr", cut)
    with pytest.raises(KeyboardInterrupt):
        writer.write()
    monkeypatch.undo()
    writer.replay.flush()
    assert len(runs(checked, "trial")) == 1
    bridge(checked, study).write()
    (run,) = runs(checked, "trial")
    assert study.user_attrs["mlflow_run_1"] == run.data.tags["entry"]


def test_a_trial_that_an_earlier_version_wrote_has_its_run_already(tmp_path: Path):
    checked = command(tmp_path)
    study = opening.opened(checked)
    add(study, checked, 0.1)
    study.set_user_attr("mlflow_run_1", "0123456789abcdef0123456789abcdef")
    bridge(checked, study).write()
    assert runs(checked, "trial") == []


def test_a_locked_store_holds_nothing_up_and_gets_every_trial_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is asked once a while and at the end, not for every trial."""
    checked = command(tmp_path)
    study = opening.opened(checked)
    writer = bridge(checked, study)
    asked, real = [], replay.trouble
    monkeypatch.setattr(replay, "trouble", lambda folder: (asked.append(1), real(folder, 0.2))[1])
    add(study, checked, 0.1)
    with closing(sqlite3.connect(checked.runs.database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        writer.write()
        add(study, checked, 0.2)
        writer.write()
        writer.write("FINISHED")
        assert len(asked) == 2
        assert "3 records wait" in writer.replay.waiting()
        assert "database is locked" in writer.replay.waiting()
    writer.write("FINISHED")
    assert writer.replay.waiting() == ""
    assert sorted(run.data.tags["optuna_trial"] for run in runs(checked, "trial")) == ["1", "2"]
    assert runs(checked, "study")[0].info.status == "FINISHED"


def test_states_and_reasons_are_kept(tmp_path: Path):
    checked = command(tmp_path)
    study = opening.opened(checked)
    space, paper = dict(checked.definition.space), dict(checked.definition.paper)
    for state, attrs in (
        (TrialState.FAIL, {REASON: "DivergedError: loss nan"}),
        (TrialState.PRUNED, {}),
        (TrialState.FAIL, {}),
    ):
        study.add_trial(create_trial(state=state, params=paper, distributions=space, user_attrs=attrs))
    study.enqueue_trial(paper, user_attrs={RETRY: 3})
    looked_at = study.ask(space)
    looked_at.report(-0.7, 5)
    study.tell(looked_at, state=TrialState.PRUNED)
    assert study.trials[looked_at.number].values == [-0.7], "Optuna's: the last look"
    bridge(checked, study).write()
    by_trial = {run.data.tags["optuna_trial"]: run for run in runs(checked, "trial")}
    assert {number: run.data.tags["state"] for number, run in by_trial.items()} == {
        "0": "pruned",
        "1": "fail",
        "2": "pruned",
        "3": "lost",
    }
    assert "clean_success" not in by_trial["0"].data.metrics
    assert {number: run.info.status for number, run in by_trial.items()} == {
        "0": "KILLED",
        "1": "FAILED",
        "2": "KILLED",
        "3": "FAILED",
    }
    assert by_trial["1"].data.tags["failed"] == "DivergedError: loss nan"


@pytest.fixture
def dashboard(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """Optuna's dashboard on a journal of five trials, by the command that a study prints."""
    if BROWSER is None:
        pytest.skip("no Chromium here (Debian: chromium)")
    if importlib.util.find_spec("optuna_dashboard") is None:
        pytest.skip("optuna-dashboard is not installed: pip install optuna-dashboard")
    checked = command(tmp_path)
    study = opening.opened(checked)
    for gain in (0.1, 0.2, 0.15, 0.05, 0.12):
        add(study, checked, gain)
    bridge(checked, study).write()
    port = free_port()
    program = Path(sys.executable).parent / "optuna-dashboard"
    server = subprocess.Popen(
        [program, checked.folder / "journal.log", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.timeout(240)
def test_optunas_dashboard_opens_a_study_in_a_browser(dashboard: str, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=BROWSER, timeout=60_000, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 1000})
        tab.set_default_timeout(60_000)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(dashboard, wait_until="domcontentloaded")
        tab.get_by_text("regularizers-smoke").first.click()
        tab.get_by_text("History", exact=True).locator("visible=true").first.wait_for()
        tab.goto(f"{dashboard}/dashboard/studies/0/trials?numbers=2", wait_until="domcontentloaded")
        tab.get_by_text("epsilon").locator("visible=true").first.wait_for()
        tab.screenshot(path=tmp_path / "dashboard.png")
        browser.close()
    assert errors == []
    assert (tmp_path / "dashboard.png").stat().st_size > 10_000

"""The command: bad input gets one message and writes nothing; a real search survives kill -9 and hands its winner to a grid."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablations import plan
from ablations.runs_folder import check
from ablations.store import Store
from studies.run import app
from studies.storage import open_storage

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--study", "nosuch"], "use one of: regularizers, regularizers-relative, policy, rm, tune-arm"),
        (["--study", "rm", "--arm", "rrpo"], "belongs to tune-arm alone"),
        (["--study", "tune-arm", "--arm", "placebo"], "use one of: diffro"),
        (["--study", "rm", "--objectives", "mos"], "no objective of that name"),
        (["--study", "rm", "--objectives", "uptake,uptake"], "named twice"),
        (["--study", "rm", "--first-seed", "1"], "development seeds only"),
        (["--study", "rm", "--first-seed", "1998", "--seeds", "3"], "development seeds only"),
        (["--study", "rm", "--trials", "0"], "--trials"),
        (["--study", "rm", "--sampler", "grid"], "use one of: tpe, gp"),
        (["--study", "rm", "--pruner", "wish"], "use one of: median"),
        (["--study", "rm", "--profile", "huge"], "use one of: smoke, embedded"),
        (["--study", "rm", "--export-arm", "a b"], "plain name"),
        (["--study", "rm", "--verify", "-1"], "must not be negative"),
    ],
)
def test_bad_input_gets_one_message_and_writes_nothing(tmp_path: Path, arguments: list[str], words: str):
    result = CliRunner().invoke(app, [*arguments, "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_real_search_survives_kill_9_and_hands_its_winner_to_a_grid(tmp_path: Path):
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "studies.run", "--study", "rm", "--profile", "smoke", "--trials", "6"]
    command += ["--seeds", "2", "--workers", "2", "--runs-dir", str(runs), "--export-arm", "tuned"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    first = start()
    journal = runs / "studies" / "rm-smoke" / "journal.log"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (journal.exists() and '"owner"' in journal.read_text()):
        time.sleep(0.2)
    time.sleep(2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()

    second = start()
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 0, said
    import optuna

    study = optuna.load_study(study_name="rm-smoke", storage=open_storage(None, journal.parent))
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == 6
    assert "FAIL" in states, "the trial that died with its process"
    store = Store(check(runs))
    number = store.experiment_id("study rm-smoke")
    children = store.client.search_runs([number], "tags.kind = 'trial'")
    numbers = sorted(int(run.data.tags["optuna_trial"]) for run in children)
    assert numbers == list(range(len(states))), "every trial once"
    by_number = study.user_attrs["mlflow_runs"]
    assert {by_number[run.data.tags["optuna_trial"]] for run in children} == {run.info.run_id for run in children}
    assert re.search(r"Best trials of rm-smoke", said)

    asked = plan.request(grid="full", profile="smoke", seeds=1, arms="diffro,tuned", runs_dir=runs)
    assert [cell.label for cell in asked.cells] == ["diffro", "tuned"]
    stored = json.loads((runs / "arms" / "tuned.json").read_text())
    assert stored["provenance"]["params"] == study.best_trial.params
    assert asked.cells[1].arm.regularizers.epsilon == pytest.approx(study.best_params["epsilon"])

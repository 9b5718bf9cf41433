"""Runs left with the status RUNNING: those of dead owners are marked as killed at the next start, others are not."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.tracking import recorder
from ablations.tracking.connection import ensure_experiment, open_client
from ablations.tracking.reconcile import AGE_LIMIT, reconcile
from ablations.tracking.recorder import create
from ablations.tracking.runs_folder import check
from rrpo.pipeline.claims import Owner, process_start, this_process

HOUR = 3600_000


def tags(owner: Owner) -> dict[str, str]:
    return {f"owner_{name}": str(value) for name, value in vars(owner).items()} | {"kind": "parent"}


@pytest.fixture
def client(runs: Path):
    folder = check(runs)
    create(folder, "tiny")
    return open_client(folder)


def state(client, experiment: str, run_tags: dict[str, str], age: int = 0) -> str:
    """Return the status of a run that was left running, after the next start."""
    started = int(time.time() * 1000) - age
    run = client.create_run(experiment, start_time=started, tags=run_tags).info.run_id
    reconcile(client)
    return str(client.get_run(run).info.status)


def test_the_dead_are_called_killed_and_the_living_are_left_alone(runs: Path, client):
    experiment = ensure_experiment(client, check(runs), "tiny")
    me = this_process()
    assert state(client, experiment, tags(me), age=1000 * HOUR) == "RUNNING", (
        "a live owner, regardless of the run's age"
    )
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        second = replace(me, pid=process.pid, started=process_start(process.pid) or "")
        assert state(client, experiment, tags(second)) == "RUNNING"
        process.kill()
        while process_start(process.pid) is not None:
            time.sleep(0.01)
        assert state(client, experiment, tags(second)) == "KILLED", "a zombie counts as dead"
    assert state(client, experiment, tags(second)) == "KILLED"
    assert state(client, experiment, tags(replace(me, started="1"))) == "KILLED", (
        "the process id now belongs to another process"
    )
    name, _, namespace = me.host.split("/", 2)
    assert state(client, experiment, tags(replace(me, host=f"{name}/before/{namespace}"))) == "KILLED", "rebooted"
    run = client.search_runs([experiment], "attributes.status = 'KILLED'")[0]
    assert run.data.tags["ended_by"]


def test_other_hosts_are_given_time(runs: Path, client):
    experiment = ensure_experiment(client, check(runs), "tiny")
    far = tags(replace(this_process(), host="far/boot/ns", name="far"))
    limit = int(AGE_LIMIT * 1000)
    assert state(client, experiment, far, age=limit - HOUR) == "RUNNING"
    assert state(client, experiment, far, age=limit + HOUR) == "KILLED"
    assert state(client, experiment, {"kind": "parent"}, age=limit + HOUR) == "RUNNING", "a run of another program"


def test_a_completed_cell_counts_whatever_its_status(runs: Path, client):
    experiment = ensure_experiment(client, check(runs), "tiny")
    dead = tags(replace(this_process(), started="1"))
    run = client.create_run(experiment, tags=dead | {"kind": "cell", "cell_hash": "h", "complete": "h"})
    recorder.create(check(runs), "tiny")
    stored = client.get_run(run.info.run_id)
    assert (stored.info.status, stored.data.tags["complete"]) == ("KILLED", "h")

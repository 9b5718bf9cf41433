"""Reading a local store with SQL gives the same result as MLflow's search."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from fixtures import Run

from ablations.tracking import local_runs
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from rrpo.pipeline.claims import this_process


@pytest.fixture
def store(runs: Path, run: Run, tmp_path: Path) -> Store:
    """A store with a grid that has a failed and a deleted run, and with another grid."""
    trouble = tmp_path / "trouble"
    trouble.write_text("raise")
    run(fakes.cells(["sft", "diffro", "rrpo"], [1], {"rrpo/1": trouble}))
    run(fakes.cells(["diffro"], [1]), grid="another")
    store = Store(check(runs))
    by_arm = {run.data.tags["arm"]: run for run in store.runs("tiny", "cell")}
    active, deleted = by_arm["diffro"], by_arm["sft"]
    store.client.delete_run(deleted.info.run_id)
    store.client.log_metric(active.info.run_id, "undefined", math.nan)
    store.client.log_metric(active.info.run_id, "twice", 1.0, timestamp=1, step=0)
    store.client.log_metric(active.info.run_id, "twice", 2.0, timestamp=2, step=1)
    return store


def test_it_reads_what_mlflow_reads(store: Store):
    experiment = store.experiment_id("tiny")
    names = ["tiny", "about tiny"]
    for kind, count in (("cell", 2), ("parent", 1)):
        theirs = store.client.search_runs([experiment, store.about_experiment("tiny")], f"tags.kind = '{kind}'")
        ours = {run.info.run_id: run for run in local_runs.read(store.folder.database, names, kind)}
        assert len(ours) == len(theirs) == count
        assert local_runs.read(store.folder.database, ["nosuch"], kind) == []
        for expected in theirs:
            run = ours[expected.info.run_id]
            for name in ("start_time", "end_time", "status", "artifact_uri", "run_name"):
                assert getattr(run.info, name) == getattr(expected.info, name)
            assert run.data.tags == expected.data.tags
            assert run.data.params == expected.data.params
            assert run.data.metrics == pytest.approx(expected.data.metrics, abs=0, nan_ok=True)
    metrics = [run.data.metrics for run in local_runs.read(store.folder.database, names, "cell")]
    assert [m["twice"] for m in metrics if "twice" in m] == [2.0]
    assert any(math.isnan(m.get("undefined", 0.0)) for m in metrics)
    starts = [run.info.start_time for run in local_runs.read(store.folder.database, names, "cell")]
    assert starts == sorted(starts)


def test_a_store_in_order_is_read_without_mlflow_and_one_that_is_not_is_put_in_order(store: Store):
    script = (
        "import sys; from pathlib import Path; from ablations.tracking.reader import Store\n"
        "from ablations.tracking.runs_folder import check\n"
        f"print(len(Store(check(Path({str(store.folder.root)!r}))).states('tiny')[0]), 'mlflow' in sys.modules)"
    )
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert read.stdout.strip() == "1 False"
    dead = vars(replace(this_process(), started="1"))
    tags = {"kind": "parent"} | {f"owner_{name}": str(value) for name, value in dead.items()}
    run = store.client.create_run(store.experiment_id("tiny"), tags=tags)
    assert len(Store(check(store.folder.root)).states("tiny")[0]) == 1
    assert store.client.get_run(run.info.run_id).info.status == "KILLED", (
        "`reconcile` checks runs with the status RUNNING"
    )
